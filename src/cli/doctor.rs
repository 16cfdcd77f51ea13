//! `bartleby doctor`

use std::process::ExitCode;

use super::{answer, gather};
use crate::report::drill;
use crate::request::{Asked, Format};
use crate::state::SeenBy;
use crate::system::Free;
use crate::view::doctor::Doctor;
use crate::web::{Plan, Url, Visit};

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut url: Option<Url> = None;
    let mut rehearse = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("web") => url = Some(arguments.value()?.parse()?),
            Long("rehearse") => rehearse = true,
            other => return Err(other.unexpected()),
        }
    }
    let context = match gather(free, SeenBy::Doctor) {
        Ok(context) => context,
        Err(code) => return Ok(code),
    };
    let plan = url.map(|url| Plan { url, deadline: context.config.mta.deadline, proxy: context.config.access.proxy });
    let web = plan.map_or_else(Vec::new, |plan| Visit::pay(&context.free, &plan).checks());
    let drill = if rehearse { drill::play(&context) } else { Vec::new() };
    Ok(answer(&context, &Asked::of(Format::Text), &mut Doctor::of(&context, web, drill)))
}
