//! `bartleby check`

use std::process::ExitCode;

use super::{answer, load, say};
use crate::context::Context;
use crate::request::{Asked, Format};
use crate::state::SeenBy;
use crate::system::Free;
use crate::view::check::{self, Check, Range, Severity, Thresholds};

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    // Whatever goes wrong is UNKNOWN, as a monitor takes 1 and 2 for warnings.
    let unknown =
        |reason: String| say(&format!("BARTLEBY UNKNOWN - {reason}")).map(|_| ExitCode::from(Severity::Unknown.code()));
    let thresholds = match thresholds(&mut arguments) {
        Ok(thresholds) => thresholds,
        Err(error) => return unknown(error.to_string()),
    };
    match load() {
        Ok(config) => {
            let context = Context::gather(free, SeenBy::Check, config);
            Ok(answer(&context, &Asked::of(Format::Text), &mut Check { thresholds }))
        }
        Err(error) => unknown(error.to_string()),
    }
}

/// Reads a threshold.
type Read = fn(&str) -> Result<Range, String>;

fn thresholds(arguments: &mut lexopt::Parser) -> Result<Thresholds, lexopt::Error> {
    use lexopt::prelude::*;
    let mut thresholds = Thresholds::default();
    while let Some(argument) = arguments.next()? {
        let (place, read): (_, Read) = match argument {
            Short('w') | Long("warning") => (&mut thresholds.warning, str::parse),
            Short('c') | Long("critical") => (&mut thresholds.critical, str::parse),
            Long("age-warning") => (&mut thresholds.age_warning, check::age_range),
            Long("age-critical") => (&mut thresholds.age_critical, check::age_range),
            Long("return-warning") => (&mut thresholds.return_warning, check::left_range),
            Long("return-critical") => (&mut thresholds.return_critical, check::left_range),
            other => return Err(other.unexpected()),
        };
        *place = Some(read(&arguments.value()?.string()?)?);
    }
    Ok(thresholds)
}
