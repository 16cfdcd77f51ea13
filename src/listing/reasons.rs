//! Why messages wait, where the listing does not say (Exim): asked message by message. The reader names queue ids, the
//! parent runs the mail server's command for each, and hands what that prints to the reader without a look at it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::{Context, Source};
use crate::mta::as_root::{self, Answer, Request, is_id};
use crate::mta::trouble::Trouble;
use crate::mta::{Attempt, Clock, Mta};
use crate::queue::{Recipient, Row};
use crate::system::process::{self, Argv, Ending, Exit, NotStarted};
use crate::system::{Account, Audience, Free, Until};

/// How long the mail server may take to explain all messages of a page.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much of what is said of a message is looked at, in bytes: the end, as the last attempt counts.
const LOOKED_AT: usize = 32 * 1024;

/// How long the line before an [`Answer`] may be, in bytes.
const HEADER: usize = 128;

/// What the mail server said.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// Of which message, and what.
    said: Vec<(String, String)>,
    /// Why it did not explain them all to this user.
    pub(crate) trouble: Option<Trouble>,
}

/// Asks the mail server of these messages, until it refuses, time is over or nobody is left.
pub(crate) fn ask(context: &Context, ids: &[String], audience: Audience<'_>) -> Explained {
    // A configured command may list another machine's queue.
    let (Ok(source), true) = (&context.source, context.config.mta.list_command.is_empty()) else {
        return Explained::default();
    };
    let until = audience.until(Instant::now() + PATIENCE);
    let ids: Vec<String> = ids.iter().filter(|id| is_id(id)).cloned().collect();
    if ids.is_empty() || source.mta.reason_command(source.mta.sample_id()).is_none() {
        return Explained::default();
    }
    if let Some(command) = context.by_the_one_rule(&Request::Reasons { ids: ids.clone() }) {
        return ask_root(context, &command, ids.len(), until);
    }
    let mut prefix = None;
    ask_each(&*source.mta, &context.account, &ids, &mut |command| {
        let prefix = prefix.get_or_insert_with(|| context.by_its_own_rule(command));
        let command = prefix.clone().map_or(command.clone(), |prefix| prefix.and(command));
        Ok(process::start(&context.free, &command)?.collect_end(LOOKED_AT, until))
    })
}

/// Asks all at once by the one rule for root.
fn ask_root(context: &Context, command: &Argv, count: usize, until: Until<'_>) -> Explained {
    let failed = |trouble| Explained { trouble: Some(trouble), ..Explained::default() };
    let running = match process::start(&context.free, command) {
        Ok(running) => running,
        Err(not_started) => return failed(not_started.into()),
    };
    let (exit, output) = running.collect_up_to(count * (HEADER + LOOKED_AT), until);
    let trouble = as_root::verdict(command, &exit).and_then(|()| exit.verdict(command)).err();
    // A message without an answer may have gone meanwhile.
    let answered = Answer::read_all(&output).into_iter().filter(|answer| answer.status == Some(0));
    let said = answered.map(|Answer { id, output, .. }| (id, String::from_utf8_lossy(&output).into_owned())).collect();
    Explained { said, trouble }
}

/// What `as-root` answers of one message.
pub(crate) fn answer(free: &Free, mta: &dyn Mta, id: &str, deadline: Instant) -> Option<Result<Answer, NotStarted>> {
    let command = mta.reason_command(id)?;
    Some(process::start(free, &command).map(|running| {
        let (exit, output) = running.collect_end(LOOKED_AT, deadline.into());
        Answer { id: id.to_owned(), status: exit.code.filter(|_| exit.ending == Ending::Exited), output }
    }))
}

/// How a command is run: how it ended, and what it printed.
type Run<'a> = &'a mut dyn FnMut(&Argv) -> Result<(Exit, Vec<u8>), NotStarted>;

fn ask_each(mta: &dyn Mta, account: &Account, ids: &[String], run: Run<'_>) -> Explained {
    let mut explained = Explained::default();
    for id in ids.iter().filter(|id| is_id(id)) {
        let Some(command) = mta.reason_command(id) else { break };
        let ended = run(&command).map_err(Trouble::from);
        let said = ended.and_then(|(exit, output)| {
            let output = String::from_utf8_lossy(&output).into_owned();
            match exit.ending {
                Ending::Deadline | Ending::ReaderGone => {
                    Err(Trouble::TooSlow { command: command.to_string(), after: PATIENCE })
                }
                Ending::OutOfReach => {
                    Err(Trouble::OutOfReach { command: command.to_string(), after: PATIENCE, messages: 0 })
                }
                // A refusal may be said on either stream, and is one for all; one message may have gone meanwhile.
                _ if !exit.success() => {
                    let first = output.lines().next().unwrap_or_default();
                    let exit = Exit { said: format!("{first}\n{}", exit.said), ..exit };
                    mta.reason_verdict(&command, &exit, account).map(|()| None)
                }
                _ => Ok(Some(output)),
            }
        });
        match said {
            Ok(output) => explained.said.extend(output.map(|output| (id.clone(), output))),
            // It would be the same for the next one.
            Err(trouble) => {
                explained.trouble = Some(trouble);
                break;
            }
        }
    }
    explained
}

impl Explained {
    /// Fills in the reasons of these messages, as far as they are known.
    pub(crate) fn fill_in(&self, source: &Source, clock: &Clock, rows: &mut [Row]) {
        for (id, output) in &self.said {
            let attempts = output.lines().filter_map(|line| source.mta.read_reason(line, clock));
            // A later line overrides an earlier.
            let last: HashMap<String, Attempt> = attempts.map(|attempt| (attempt.recipient.clone(), attempt)).collect();
            let of_this = rows.iter_mut().map(|row| &mut row.message).filter(|message| message.id == *id);
            let waiting = |recipient: &&mut Recipient<'_>| !recipient.delivered;
            for recipient in of_this.flat_map(|message| &mut message.recipients).filter(waiting) {
                let attempt = last.get(&*recipient.address);
                recipient.reason = attempt.map(|attempt| attempt.reason.clone().into());
                recipient.last_attempt = attempt.and_then(|attempt| attempt.ended);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mta::{self, Kind, Search};
    use crate::queue::{Message, State};

    fn exit(code: i32, said: &str) -> Exit {
        Exit {
            ending: Ending::Exited,
            code: Some(code),
            signal: None,
            said: said.into(),
            allowed: PATIENCE,
            unfinished: false,
        }
    }

    /// What comes of asking Exim of these messages, and how often it was asked.
    fn asked(ids: &[&str], answer: fn(&str) -> (Exit, &'static str)) -> (Explained, usize) {
        let mta = mta::find(Some(Kind::Exim), &Search::below(Path::new("/nonexistent"))).unwrap();
        let account = Account { uid: 33, name: "www-data".into(), bound: false };
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let mut runs = 0;
        let explained = ask_each(&*mta, &account, &ids, &mut |command| {
            runs += 1;
            let (exit, output) = answer(command.to_string().rsplit(' ').next().unwrap());
            Ok((exit, output.into()))
        });
        (explained, runs)
    }

    const IDS: [&str; 3] = ["1vNAb2-00000c-2p", "1vNAb2-00000d-2p", "1vNAb2-00000e-2p"];

    #[test]
    fn the_first_refusal_is_the_last_question() {
        let (explained, runs) = asked(&IDS, |_| (exit(1, "exim: permission denied"), ""));
        assert_eq!(runs, 1);
        assert!(matches!(explained.trouble, Some(Trouble::NotPermitted { .. })), "{:?}", explained.trouble);
    }

    #[test]
    fn a_message_that_has_gone_meanwhile_stops_no_question_about_the_others() {
        let log = "2026-11-23 11:28:02 full@example.com R=primary T=remote defer (-44): over quota\n";
        let (explained, runs) = asked(&IDS, |id| match id {
            "1vNAb2-00000c-2p" => (exit(1, "Failed to open message log file"), ""),
            _ => (exit(0, ""), "2026-11-23 11:28:02 full@example.com R=primary T=remote defer (-44): over quota\n"),
        });
        assert_eq!((runs, explained.said.len(), &explained.trouble), (3, 2, &None));
        assert_eq!(explained.said[0], (IDS[1].to_owned(), log.to_owned()));
        let mta = mta::find(Some(Kind::Exim), &Search::below(Path::new("/nonexistent"))).unwrap();
        let commands = mta.list_commands();
        let message = Message {
            id: IDS[1].into(),
            state: State::Deferred,
            mta_state: "".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: None,
            arrival: None,
            sender: None,
            recipients: vec![Recipient {
                address: "full@example.com".into(),
                reason: None,
                delivered: false,
                last_attempt: None,
            }],
            plan: crate::queue::Plan::default(),
        };
        let mut rows = [Row { message, left_out: 0 }];
        let clock = Clock { now: 1_795_500_000, zone: jiff::tz::TimeZone::UTC };
        explained.fill_in(&Source { mta, commands }, &clock, &mut rows);
        let recipient = &rows[0].message.recipients[0];
        assert_eq!((recipient.reason.as_deref(), recipient.last_attempt), (Some("over quota"), Some(1_795_433_282)));
    }

    #[test]
    fn an_id_that_could_be_an_option_is_never_asked_about() {
        assert_eq!(asked(&["-bi", "a b", "$(id)"], |_| (exit(0, ""), "")).1, 0);
    }
}
