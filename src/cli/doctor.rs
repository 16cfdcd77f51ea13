//! `bartleby doctor`

use std::process::ExitCode;

use super::{answer, gather, no_more};
use crate::request::{Asked, Format};
use crate::state::SeenBy;
use crate::system::Free;
use crate::view::doctor::Doctor;

pub(super) fn run(free: Free, arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    no_more(arguments)?;
    let context = match gather(free, SeenBy::Doctor) {
        Ok(context) => context,
        Err(code) => return Ok(code),
    };
    Ok(answer(&context, &Asked::of(Format::Text), &mut Doctor::of(&context)))
}
