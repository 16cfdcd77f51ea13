//! What holds of a rehearsal, whatever a primary says.

use bartleby::mta::Kind;
use bartleby::primary::rehearsal::{Heard, MOST_RECIPIENTS, MOST_REFUSALS, Rehearsal};
use bartleby::primary::reply::Replies;
use bartleby::primary::verdict::Verdict;

/// Whatever a primary says, line by line: a rehearsal ends, says nothing but its few commands, and leaves no more than
/// so many refusals.
pub fn rehearsal(bytes: &[u8]) {
    let recipients: Vec<_> = (0..20).map(|number| format!("user{number}@example.com")).collect();
    let mut rehearsal = Rehearsal::new("mx2.example.com", &recipients);
    let (mut replies, mut commands) = (Replies::default(), Vec::<String>::new());
    let (mut refusals, mut is_over) = (0, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        replies.push(line);
        let heard = match replies.take() {
            Ok(None) => continue,
            Ok(Some(reply)) => Heard::Reply(reply),
            Err(nonsense) => Heard::Nonsense(nonsense),
        };
        let is_refused = matches!(&heard, Heard::Reply(reply) if reply.code / 100 != 2);
        let asked = commands.last().is_some_and(|command| command.starts_with("RCPT"));
        refusals += usize::from(is_refused && asked);
        match rehearsal.next(heard) {
            Some(command) => commands.push(command),
            None => {
                is_over = true;
                break;
            }
        }
    }
    while !is_over {
        is_over = rehearsal.next(Heard::Closed).is_none();
    }
    let known = ["EHLO mx2.example.com", "HELO mx2.example.com", "RSET", "QUIT", "MAIL FROM:<>"];
    let is_known = |command: &String| {
        let recipient = command.strip_prefix("RCPT TO:<").and_then(|rest| rest.strip_suffix('>'));
        known.contains(&command.as_str())
            || command == "MAIL FROM:<postmaster@mx2.example.com>"
            || recipient.is_some_and(|address| recipients.iter().any(|known| known == address))
    };
    assert!(commands.iter().all(is_known), "{commands:?}");
    let asked = commands.iter().filter(|command| command.starts_with("RCPT")).count();
    assert!(asked <= MOST_RECIPIENTS + 1 && refusals <= MOST_REFUSALS, "{refusals} of {asked}");
    let answers = rehearsal.answers();
    assert!(answers.accepted() + answers.refused() <= answers.recipients.len());
    for kind in [Kind::Postfix, Kind::Sendmail, Kind::Exim, Kind::OpenSmtpd] {
        let verdict = Verdict::on(&answers, kind);
        let half = answers.refused() * 2 >= answers.recipients.len() && answers.refused() > 0;
        assert!(!(half && verdict.is_good()) || verdict == Verdict::AcceptsOthers, "{verdict:?}: {answers:?}");
    }
}
