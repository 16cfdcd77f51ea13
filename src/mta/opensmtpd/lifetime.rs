//! How long OpenSMTPD keeps mail.
//!
//! Sources: smtpd.conf(5), OpenSMTPD's `parse.y`, and what was measured with OpenSMTPD 6.8 and 7.6: a message goes back
//! to the second, without another attempt, also when the primary is back and at smtpd's start. When it is tried
//! next, the listing says. The ninth field of `show queue` looks like an expiry and is the creation again.

use std::path::{Path, PathBuf};

use super::super::timing::{Gap, InForce, Lifetime, Retry, Timing, longer, seconds};
use crate::queue::Lifetimes;

/// The lifetime where the file sets none (smtpd.conf(5)).
const USUAL: &str = "4d";

/// How deep files may include each other.
const DEPTH: usize = 8;

/// What `smtpd.conf` says. `read` reads a file, and `in_force` compares the files with the daemon's start.
pub(super) fn timing(
    file: &Path,
    read: &dyn Fn(&Path) -> Option<String>,
    in_force: &dyn Fn(&[PathBuf]) -> InForce,
) -> Timing {
    let (found, files) = match read(file) {
        Some(text) => {
            let mut settings = Settings::default();
            settings.read(&text, read, DEPTH);
            let found = if settings.unread.is_empty() { settings.lifetime() } else { Err(unread(&settings.unread[0])) };
            (found, [vec![file.to_owned()], settings.files].concat())
        }
        None => (Err(unread(file)), Vec::new()),
    };
    let days = found.as_ref().map_or(longer(0), |(seconds, _)| longer(*seconds));
    let known = |(seconds, basis)| Lifetime::Known {
        lifetimes: Lifetimes::At { message: seconds },
        seconds,
        null_sender: seconds,
        basis,
    };
    Timing {
        lifetime: found.map_or_else(Lifetime::Unknown, known).in_force(file, in_force(&files), RESTART),
        retry: Retry::Listed { basis: "smtpctl show queue".into() },
        stopped: None,
        more_time: format!(
            "First write “queue ttl {days}d” into {}, and the same ttl into each action that has one of its own. Its start \
             returns at once what is past its time. {RESTART}",
            file.display()
        ),
    }
}

const RESTART: &str = "As root:\n    smtpd -n && systemctl restart opensmtpd";

fn unread(file: &Path) -> Gap {
    Gap::of_lifetime(format!("{} can't be read", file.display()))
}

/// What was read of the file, and of those that it includes.
#[derive(Default)]
struct Settings {
    macros: Vec<(String, String)>,
    queue: Option<String>,
    /// The `ttl` of each action that relays.
    relays: Vec<Option<String>>,
    files: Vec<PathBuf>,
    unread: Vec<PathBuf>,
}

impl Settings {
    fn read(&mut self, text: &str, read: &dyn Fn(&Path) -> Option<String>, depth: usize) {
        for statement in statements(text) {
            let words: Vec<&str> = statement.iter().map(String::as_str).collect();
            match words[..] {
                [name, "=", value] => self.macros.push((name.to_owned(), value.to_owned())),
                ["include", file] if depth > 0 => {
                    let file = PathBuf::from(self.meant(file));
                    match read(&file) {
                        Some(text) => self.read(&text, read, depth - 1),
                        None => self.unread.push(file.clone()),
                    }
                    self.files.push(file);
                }
                // The second form is that of OpenSMTPD before 6.4.
                ["queue", "ttl", ttl] | ["expire", ttl] => self.queue = Some(self.meant(ttl)),
                ["action", _, "relay", ref rest @ ..] => {
                    let own = rest.iter().position(|word| *word == "ttl").and_then(|at| rest.get(at + 1));
                    let own = own.map(|ttl| self.meant(ttl));
                    self.relays.push(own);
                }
                _ => {}
            }
        }
    }

    /// A word, or the value of the macro that it names.
    fn meant(&self, word: &str) -> String {
        let name = word.strip_prefix('$');
        let value = name.and_then(|name| self.macros.iter().rev().find(|(known, _)| known == name));
        value.map_or(word, |(_, value)| value).to_owned()
    }

    /// How long mail is kept, in seconds, and the setting that says so.
    fn lifetime(&self) -> Result<(i64, String), Gap> {
        let of_queue = self.queue.as_deref().unwrap_or(USUAL);
        let mut each: Vec<&str> = self.relays.iter().map(|own| own.as_deref().unwrap_or(of_queue)).collect();
        each.sort_unstable();
        each.dedup();
        let ttl = match each[..] {
            [] => of_queue,
            [only] => only,
            [first, second, ..] => {
                return Err(Gap {
                    why: format!(
                        "the actions of smtpd.conf keep mail for {first} and for {second}, and the listing does not say \
                         which action a message has"
                    ),
                    remedy:
                        "Give each action that relays the same ttl, or write the shortest into /etc/bartleby.toml: \
                             [mta] lifetime."
                            .into(),
                });
            }
        };
        let basis = match &self.queue {
            _ if ttl != of_queue => format!("ttl {ttl} of its action"),
            Some(_) => format!("queue ttl {ttl}"),
            None => format!("queue ttl {ttl}, OpenSMTPD's default"),
        };
        let wrong = || Gap::of_lifetime(format!("“ttl {ttl}” in smtpd.conf is no plain length of time"));
        seconds(ttl, '?').map(|seconds| (seconds, basis)).ok_or_else(wrong)
    }
}

/// The statements of the file, word by word: one a line, or on several where a backslash ends a line. `#` begins a comment,
/// quotes keep a word together, and `=` is a word of its own.
fn statements(text: &str) -> Vec<Vec<String>> {
    let mut statements = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut characters = text.chars().peekable();
    let mut quote = None;
    let end = |word: &mut Option<String>, statements: &mut Vec<Vec<String>>| {
        if let (Some(word), Some(statement)) = (word.take(), statements.last_mut()) {
            statement.push(word);
        }
    };
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', _) if characters.peek() == Some(&'\n') => {
                characters.next();
                if quote.is_none() {
                    end(&mut word, &mut statements);
                }
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => while characters.next_if(|c| *c != '\n').is_some() {},
            ('\n', None) => {
                end(&mut word, &mut statements);
                statements.push(Vec::new());
            }
            (' ' | '\t' | ',' | '{' | '}', None) => end(&mut word, &mut statements),
            ('=', None) => {
                end(&mut word, &mut statements);
                word = Some("=".into());
                end(&mut word, &mut statements);
            }
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut statements);
    statements.retain(|statement| !statement.is_empty());
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn of(files: &[(&str, &str)]) -> Timing {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| path == Path::new(name));
            found.map(|(_, text)| (*text).to_owned())
        };
        timing(Path::new("/etc/smtpd.conf"), &read, &|_| InForce::Yes)
    }

    fn lifetime(text: &str) -> (i64, String) {
        match of(&[("/etc/smtpd.conf", text)]).lifetime {
            Lifetime::Known { seconds, basis, .. } => (seconds, basis),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_shipped_configuration_keeps_mail_for_six_days() {
        let shipped = include_str!("../../../examples/opensmtpd/smtpd.conf");
        assert_eq!(lifetime(shipped), (6 * DAY, "queue ttl 6d".into()));
        // What grep -n printed of it on Debian 13, without its line numbers.
        let recorded = include_str!("../../../tests/fixtures-clocks/opensmtpd/lifetime-conf.stdout");
        let lines = recorded.lines().filter_map(|line| line.split_once(':')).map(|(_, line)| line);
        assert_eq!(lifetime(&lines.collect::<Vec<_>>().join("\n")), (6 * DAY, "queue ttl 6d".into()));
        let more = of(&[("/etc/smtpd.conf", shipped)]).more_time;
        assert!(more.starts_with("First write “queue ttl 14d” into /etc/smtpd.conf"), "{more}");
    }

    #[test]
    fn an_actions_own_ttl_wins() {
        for (text, seconds, basis) in [
            ("", 4 * DAY, "queue ttl 4d, OpenSMTPD's default"),
            ("action \"a\" relay host \"smtp://x\"", 4 * DAY, "queue ttl 4d, OpenSMTPD's default"),
            ("queue ttl 90m # short\naction a relay", 90 * 60, "queue ttl 90m"),
            ("queue ttl 6d\naction a relay ttl 1d\naction b mbox ttl 9d", DAY, "ttl 1d of its action"),
            ("long = \"7d\"\nqueue ttl $long", 7 * DAY, "queue ttl 7d"),
            ("queue \\\n ttl 2d", 2 * DAY, "queue ttl 2d"),
            (
                "action a relay ttl 3d\naction b \\\n relay host \"smtp://ttl\" ttl \"3d\"",
                3 * DAY,
                "ttl 3d of its action",
            ),
            ("# queue ttl 9d\nexpire 5d", 5 * DAY, "queue ttl 5d"),
            ("action 'x' mbox ttl 1d", 4 * DAY, "queue ttl 4d, OpenSMTPD's default"),
        ] {
            assert_eq!(lifetime(text), (seconds, basis.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_clear_is_unknown_with_its_remedy() {
        for (files, says) in [
            (&[][..], "/etc/smtpd.conf can't be read"),
            (&[("/etc/smtpd.conf", "include \"/etc/more.conf\"\nqueue ttl 6d")], "/etc/more.conf can't be read"),
            (&[("/etc/smtpd.conf", "queue ttl 6d\naction a relay\naction b relay ttl 1d")], "for 1d and for 6d"),
            (&[("/etc/smtpd.conf", "queue ttl six")], "“ttl six” in smtpd.conf is no plain length of time"),
            (&[("/etc/smtpd.conf", "queue ttl 6")], "“ttl 6” in smtpd.conf"),
            (&[("/etc/smtpd.conf", "queue ttl $unset")], "“ttl $unset” in smtpd.conf"),
        ] {
            let Lifetime::Unknown(gap) = of(files).lifetime else { panic!("{files:?}") };
            assert!(gap.why.contains(says) && gap.remedy.contains("lifetime"), "{gap:?}");
        }
    }

    #[test]
    fn included_files_count_for_what_is_in_force() {
        let read = |path: &Path| {
            Some(if path.ends_with("more.conf") { "queue ttl 6d" } else { "include \"/etc/more.conf\"" }.to_owned())
        };
        let in_force = |files: &[PathBuf]| {
            if files.contains(&PathBuf::from("/etc/more.conf")) { InForce::No } else { InForce::Yes }
        };
        let Timing { lifetime, .. } = timing(Path::new("/etc/smtpd.conf"), &read, &in_force);
        let Lifetime::NotInForce { seconds, step, .. } = lifetime else { panic!("{lifetime:?}") };
        assert!(seconds == 6 * DAY && step.contains("restart opensmtpd"));
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let timing = of(&[("/etc/smtpd.conf", "include \"/etc/smtpd.conf\"\nqueue ttl 6d")]);
        assert!(matches!(timing.lifetime, Lifetime::Known { .. }));
    }
}
