//! `bartleby metrics`

use std::process::ExitCode;

use super::{gather, list, no_more};
use crate::request::Format;
use crate::state::SeenBy;
use crate::system::Free;

pub(super) fn run(free: Free, arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    no_more(arguments)?;
    Ok(gather(free, SeenBy::Metrics).map_or_else(|code| code, |context| list::list(&context, Format::OpenMetrics)))
}
