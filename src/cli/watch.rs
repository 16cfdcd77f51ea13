//! `bartleby watch`

use std::process::ExitCode;
use std::thread;

use super::{EX_UNAVAILABLE, gather, say};
use crate::state::SeenBy;
use crate::system::{Free, log};
use crate::watch;

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut once = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("once") => once = true,
            other => return Err(other.unexpected()),
        }
    }
    let mut free = free;
    loop {
        // From the beginning each time, as configuration and mail server may change.
        let context = match gather(free, SeenBy::Watch) {
            Ok(context) => context,
            Err(code) => return Ok(code),
        };
        let code = match watch::once(&context) {
            Ok(line) => say(&line)?,
            Err(error) => {
                log(&error.to_string());
                ExitCode::from(EX_UNAVAILABLE)
            }
        };
        if once {
            return Ok(code);
        }
        thread::sleep(watch::INTERVAL);
        free = context.free;
    }
}
