//! What sudo or doas rules let this user run as root: found and used without configuration.
//!
//! The one rule, for `bartleby as-root`, is asked for first; without it, rules for the mail server's own commands
//! are. All questions of that kind are asked at once, and each is asked once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::as_root::{self, Request};
use super::{Mta, Part};
use crate::system::process::{self, Argv, Running};
use crate::system::{Account, Free};

/// The file for the rule, see `examples/sudoers`. sudo is asked only where this file is seen:
/// sudo reports a user who asks without any rule to the administrator, by mail, which would then wait in the queue.
pub(super) const SUDO_RULE: &str = "/etc/sudoers.d/bartleby";

/// doas(1)'s rules.
const DOAS_RULES: &str = "/etc/doas.conf";

/// How long sudo or doas may think about a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// A program that runs commands as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Tool {
    Sudo,
    Doas,
}

impl Tool {
    const ALL: [Tool; 2] = [Tool::Sudo, Tool::Doas];

    /// It is asked only where this file is seen.
    fn rules(self) -> &'static str {
        match self {
            Tool::Sudo => SUDO_RULE,
            Tool::Doas => DOAS_RULES,
        }
    }

    /// The words before a command that ask whether it is allowed without a password.
    fn question(self) -> &'static [&'static str] {
        match self {
            Tool::Sudo => &["sudo", "-n", "-l", "--"],
            Tool::Doas => &["doas", "-C", DOAS_RULES],
        }
    }

    /// What the answer begins with where it is; the status is 0, too.
    fn yes(self) -> &'static str {
        match self {
            Tool::Sudo => "",
            Tool::Doas => "permit nopass",
        }
    }

    /// The words before a command that run it as root.
    fn prefix(self) -> &'static [&'static str] {
        match self {
            Tool::Sudo => &["sudo", "-n", "--"],
            Tool::Doas => &["doas", "-n"],
        }
    }

    /// Whether there may be rules of it.
    fn is_seen(self) -> bool {
        fs::symlink_metadata(self.rules()).is_ok()
    }
}

/// A command's words with others before it.
fn behind(words: &[&str], command: &Argv) -> Argv {
    words.split_first().map_or_else(|| command.clone(), |(first, rest)| Argv::new(*first, rest).and(command))
}

/// The files on which the answers depend: sudo's rules, doas's, and root's copy of this program.
pub(crate) fn files() -> Vec<PathBuf> {
    ["/etc/sudoers", "/etc/sudoers.d", SUDO_RULE, DOAS_RULES, as_root::program()].map(PathBuf::from).into()
}

/// Whether there may be any rule.
pub(crate) fn is_possible() -> bool {
    Tool::ALL.into_iter().any(Tool::is_seen)
}

/// What sudo and doas said: of the one rule, and of commands of the mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    one: Option<Option<Tool>>,
    own: Vec<(Argv, Option<Tool>)>,
}

/// What is known of the rules: what was said a short while ago, or nothing at first.
#[derive(Default)]
pub(crate) struct Privilege {
    /// The tool with the one rule.
    one: OnceCell<Option<Tool>>,
    /// Commands of the mail server that were asked for, each with the tool that runs it, where one does.
    known: RefCell<HashMap<Argv, Option<Tool>>>,
    /// Whether anything was asked.
    has_asked: Cell<bool>,
}

impl Privilege {
    /// What was said a short while ago.
    pub(crate) fn said(said: Said) -> Privilege {
        let Said { one, own } = said;
        let known = RefCell::new(own.into_iter().collect());
        Privilege { one: one.map(OnceCell::from).unwrap_or_default(), known, has_asked: Cell::new(false) }
    }

    /// All that is known, where anything was asked since this was called last.
    pub(crate) fn news(&self) -> Option<Said> {
        let own = || self.known.borrow().iter().map(|(command, tool)| (command.clone(), *tool)).collect();
        self.has_asked.take().then(|| Said { one: self.one.get().copied(), own: own() })
    }

    /// The command by which root does this, where the one rule allows it. Root needs no rule.
    pub(crate) fn by_the_one_rule(&self, free: &Free, account: &Account, request: &Request) -> Option<Argv> {
        let find = || {
            let is_possible = !account.is_root() && as_root::is_installed();
            let asked: Vec<_> = is_possible.then(as_root::command).into_iter().collect();
            self.ask(free, &asked).pop().flatten()
        };
        let tool = (*self.one.get_or_init(find))?;
        Some(behind(tool.prefix(), &as_root::command()).with_input(request.line()))
    }

    /// The words to put before the mail server's own command, where a rule for exactly this command runs it as root. With
    /// the first one, all are asked for that are foreseen.
    pub(crate) fn by_its_own_rule(
        &self,
        free: &Free,
        account: &Account,
        mta: &dyn Mta,
        command: &Argv,
    ) -> Option<Argv> {
        if account.is_root() {
            return None;
        }
        let mut known = self.known.borrow_mut();
        if !known.contains_key(command) {
            let mut commands = if known.is_empty() { foreseen(mta) } else { Vec::new() };
            commands.retain(|foreseen| foreseen != command);
            commands.push(command.clone());
            let tools = self.ask(free, &commands);
            known.extend(commands.into_iter().zip(tools));
        }
        let [first, rest @ ..] = known.get(command).copied().flatten()?.prefix() else { return None };
        Some(Argv::new(*first, rest))
    }

    fn ask(&self, free: &Free, commands: &[Argv]) -> Vec<Option<Tool>> {
        self.has_asked.set(self.has_asked.get() || !commands.is_empty());
        ask(free, commands)
    }
}

/// What a view of the page asks for.
fn foreseen(mta: &dyn Mta) -> Vec<Argv> {
    let runs = [Part::All, Part::Message(mta.sample_id())].into_iter().flat_map(|part| mta.flush_commands(&part));
    mta.list_commands().into_iter().chain(runs).collect()
}

/// The first tool that allows each of these commands without a password. All questions run side by side.
fn ask(free: &Free, commands: &[Argv]) -> Vec<Option<Tool>> {
    let tools: Vec<_> = Tool::ALL.into_iter().filter(|tool| tool.is_seen()).collect();
    let asked: Vec<Vec<(Tool, Running)>> = commands
        .iter()
        .map(|command| {
            let start = |tool: &Tool| Some((*tool, process::start(free, &behind(tool.question(), command)).ok()?));
            tools.iter().filter_map(start).collect()
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    asked
        .into_iter()
        .map(|questions| questions.into_iter().find_map(|(tool, running)| allowed(tool, running, deadline)))
        .collect()
}

fn allowed(tool: Tool, question: Running, deadline: Instant) -> Option<Tool> {
    let (exit, output) = question.collect(deadline);
    (exit.success() && String::from_utf8_lossy(&output).starts_with(tool.yes())).then_some(tool)
}
