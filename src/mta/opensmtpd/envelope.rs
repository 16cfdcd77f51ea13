//! A line of `smtpctl show queue`: an envelope, which is one recipient of a message.
//!
//! Sources: `show_queue_envelope()` of OpenSMTPD's `smtpctl.c`, and the recorded output under
//! `tests/fixtures/opensmtpd`.

use std::borrow::Cow;

use crate::queue::{Plan, State};

/// One line, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) message_id: &'a str,
    pub(super) flags: &'a str,
    /// `None` where the line can be read in more than one way.
    pub(super) sender: Option<&'a str>,
    pub(super) recipient: &'a str,
    pub(super) creation: i64,
    pub(super) tries: u64,
    pub(super) run_state: &'static str,
    /// Seconds until the next try, or since it is due; `None` where no try is pending.
    pub(super) wait: Option<i64>,
    pub(super) error: &'a str,
}

impl<'a> Envelope<'a> {
    /// Reads `id|source|agent|flags|sender|recipient|resolved recipient|creation|expiry|last try|
    /// tries|state|seconds|last error`.
    ///
    /// Local parts may hold a `|`, and the last error may hold anything; smtpctl escapes neither. There is one reading
    /// all the same, as smtpd takes no address of another form ([`three_addresses`]): what looks like the fields of
    /// fixed form is only that behind the third address (fixture `forged-offline-show-queue`). Where no such fields
    /// are there, this looks for them and keeps the addresses as one text, unread.
    pub(super) fn read(line: &'a str) -> Option<Envelope<'a>> {
        let mut rest = line;
        let [id, _source, _agent, flags] = fields(&mut rest)?;
        if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let read = three_addresses(rest).and_then(|(addresses, fields)| Some((addresses, Anchor::read(fields)?)));
        let (sender, recipient, anchor) = match read {
            Some(([sender, _, resolved], anchor)) => (Some(if sender == "@" { "" } else { sender }), resolved, anchor),
            None => {
                let mut bars = memchr::memchr_iter(b'|', rest.as_bytes());
                let (bar, anchor) = bars.find_map(|bar| Some((bar, Anchor::read(&rest[bar + 1..])?)))?;
                (None, &rest[..bar], anchor)
            }
        };
        Some(Envelope {
            message_id: &id[..8],
            flags,
            sender,
            recipient,
            creation: anchor.creation,
            tries: anchor.tries,
            run_state: anchor.run_state,
            wait: anchor.wait,
            error: anchor.error,
        })
    }

    /// Whether an administrator has paused it.
    pub(super) fn is_paused(&self) -> bool {
        self.has_flag("suspend")
    }

    fn has_flag(&self, sought: &str) -> bool {
        self.flags.split(',').any(|flag| flag == sought)
    }

    /// How often it was tried, and when it is tried next. One that smtpd holds back while its route is down (`hold`) does
    /// not expire until that is up again.
    pub(super) fn plan(&self, now: i64) -> Plan {
        let is_paused = self.is_paused();
        Plan {
            attempts: Some(self.tries),
            next_attempt: self
                .wait
                .filter(|_| !is_paused && !self.has_flag("hold"))
                .map(|wait| now.saturating_add(wait)),
            held_back: self.has_flag("hold") && !is_paused,
            partly_held: false,
        }
    }

    pub(super) fn state(&self) -> State {
        if self.is_paused() || self.has_flag("hold") {
            State::Held
        } else if self.run_state == "inflight" {
            State::Active
        } else {
            State::Deferred
        }
    }

    pub(super) fn word(&self) -> Cow<'static, str> {
        if self.flags.is_empty() && self.sender.is_some() {
            return Cow::Borrowed(self.run_state);
        }
        let ambiguous = if self.sender.is_none() { " (addresses not clear)" } else { "" };
        let flags = if self.flags.is_empty() { String::new() } else { format!(", {}", self.flags) };
        Cow::Owned(format!("{}{flags}{ambiguous}", self.run_state))
    }
}

/// What is to become of a message with these two envelopes.
pub(super) fn both(one: Plan, other: Plan) -> Plan {
    let earliest = [one.next_attempt, other.next_attempt].into_iter().flatten().min();
    let held_back = one.held_back || other.held_back;
    let partly_held = one.partly_held || other.partly_held;
    Plan { attempts: one.attempts.max(other.attempts), next_attempt: earliest, held_back, partly_held }
}

/// The fields of fixed form.
struct Anchor<'a> {
    creation: i64,
    tries: u64,
    run_state: &'static str,
    wait: Option<i64>,
    error: &'a str,
}

impl<'a> Anchor<'a> {
    fn read(text: &'a str) -> Option<Anchor<'a>> {
        let is_number = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        let mut rest = text;
        // Most bars are not where these fields begin, and the first field shows it.
        let [creation] = fields(&mut rest).filter(|[field]| is_number(field))?;
        let [expiry, last_try, tries, state, wait] = fields(&mut rest)?;
        let run_state = ["pending", "inflight", "invalid", "offline"].into_iter().find(|known| *known == state)?;
        let is_wait = wait.is_empty() || is_number(wait.strip_prefix('-').unwrap_or(wait));
        let is_fixed = is_wait && [expiry, last_try, tries].into_iter().all(is_number);
        let (creation, tries) = (creation.parse().ok()?, tries.parse().ok()?);
        let wait = wait.parse().ok().filter(|_| run_state == "pending");
        is_fixed.then_some(Anchor { creation, tries, run_state, wait, error: rest })
    }
}

/// Takes so many fields, each with the `|` behind it.
fn fields<'a, const N: usize>(rest: &mut &'a str) -> Option<[&'a str; N]> {
    let mut fields = [""; N];
    for field in &mut fields {
        let end = memchr::memchr(b'|', rest.as_bytes())?;
        (*field, *rest) = (&rest[..end], &rest[end + 1..]);
    }
    Some(fields)
}

/// Sender, recipient and resolved recipient, and what stands behind their last `|`. Of several ways to split a text
/// there is only one of this form: smtpd takes no `@` and no `"` in a local part and no `|` in a domain
/// (`valid_localpart()` and `valid_domainpart()` of OpenSMTPD's `util.c`), so each address goes up to the first `|`
/// behind its only `@`.
fn three_addresses(text: &str) -> Option<([&str; 3], &str)> {
    let mut rest = text;
    let mut addresses = [""; 3];
    for address in &mut addresses {
        let at = memchr::memchr(b'@', rest.as_bytes())?;
        let end = at + memchr::memchr(b'|', &rest.as_bytes()[at..])?;
        *address = &rest[..end];
        if rest[..at].contains('"') || rest[at + 1..end].contains(['@', '"']) {
            return None;
        }
        rest = &rest[end + 1..];
    }
    Some((addresses, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(addresses: &str, error: &str) -> String {
        format!("c44e9b80594dd7b5|inet4|mta||{addresses}|1795433446|1795433446|0|1|pending|-4|{error}")
    }

    #[test]
    fn a_bar_in_an_address_or_an_error_is_no_field() {
        let read = |addresses: &str, error: &str| {
            let line = line(addresses, error);
            let envelope = Envelope::read(&line).unwrap();
            (envelope.sender.map(str::to_owned), envelope.recipient.to_owned(), envelope.error.to_owned())
        };
        let plain = |sender: &str, recipient: &str, error: &str| {
            (Some(sender.to_owned()), recipient.to_owned(), error.to_owned())
        };
        assert_eq!(read("a@x.example|b@y.example|b@y.example", ""), plain("a@x.example", "b@y.example", ""));
        assert_eq!(read("@|b@y.example|c@z.example", "450 no|w"), plain("", "c@z.example", "450 no|w"));
        assert_eq!(read("a|b@x.example|c@y.example|c@y.example", ""), plain("a|b@x.example", "c@y.example", ""));
        let forged = "x|1|1|0|0|offline||y@example.org";
        assert_eq!(read(&format!("{forged}|b@y.example|b@y.example"), ""), plain(forged, "b@y.example", ""));
        let error = "x|1|1|1|1|pending|1|y";
        assert_eq!(read("a@x.example|b@y.example|b@y.example", error), plain("a@x.example", "b@y.example", error));
    }

    #[test]
    fn addresses_of_a_form_that_smtpd_does_not_take_are_not_guessed_at() {
        for addresses in
            [r#""a@b|c"@x.example|d@y.example|d@y.example"#, "x@y@z.example|a@b|a@b", "x|y|z", &"|".repeat(500)]
        {
            let line = line(addresses, "");
            let envelope = Envelope::read(&line).unwrap();
            assert_eq!((envelope.sender, envelope.recipient), (None, addresses));
            assert!(envelope.word().contains("not clear"));
        }
    }

    #[test]
    fn states_follow_flags_first() {
        for (flags, run_state, state) in [
            ("", "pending", State::Deferred),
            ("", "inflight", State::Active),
            ("suspend", "inflight", State::Held),
            ("auth,hold", "pending", State::Held),
            ("bounce", "pending", State::Deferred),
        ] {
            let line = format!("c44e9b80594dd7b5|inet6|mta|{flags}|a@x|b@y|b@y|1|1|0|1|{run_state}|4|");
            assert_eq!(Envelope::read(&line).unwrap().state(), state, "{flags} {run_state}");
        }
    }
}
