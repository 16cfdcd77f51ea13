//! `bartleby outage`

use std::process::ExitCode;

use super::{EX_DATAERR, EX_UNAVAILABLE, gather, print};
use crate::report::receipt::Receipt;
use crate::request::Format;
use crate::state::SeenBy;
use crate::system::{Free, log};
use crate::view::receipt::receipt;

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut number: Option<u64> = None;
    let mut format = Format::Text;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("format") => {
                let word = arguments.value()?.string()?;
                let known = [Format::Text, Format::Json].into_iter().find(|known| known.as_str() == word);
                format = known.ok_or(format!("the format “{word}” is not known, text and json are"))?;
            }
            Value(text) if number.is_none() => {
                let text = text.string()?;
                let known = text.parse().ok().filter(|number| *number > 0);
                number = Some(known.ok_or(format!("“{text}” is no number of an outage"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    // It looks at no primary.
    let context = match gather(free, SeenBy::List) {
        Ok(context) => context,
        Err(code) => return Ok(code),
    };
    let found = context.records.as_ref().map_err(Clone::clone);
    match found.and_then(|records| Receipt::of(records, number, context.clock.now)) {
        Ok(Some(made)) => {
            let bytes = receipt(format, &context.host, &context.clock.zone, &made);
            print(&String::from_utf8_lossy(&bytes))
        }
        Ok(None) => {
            log(&number.map_or_else(
                || "no outage of the primary is on record, as far as anybody looked".to_owned(),
                |number| format!("there is no outage {number} on record"),
            ));
            Ok(ExitCode::from(EX_DATAERR))
        }
        Err(error) => {
            log(&error.to_string());
            Ok(ExitCode::from(EX_UNAVAILABLE))
        }
    }
}
