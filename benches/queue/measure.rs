//! Runs one command and tells what it cost.
//!
//! The command is started by a process of its own, this bench as `queue --measure COMMAND...`. When the
//! command has ended, and before the kernel forgets it, its processor clock is read: the time of
//! the command and its threads, but not of its children (the lister is one). The launcher's account of
//! ended children (`RUSAGE_CHILDREN`) then has everything together. Peak memory is that of the
//! largest process among them; a fresh process counts what the one that started it had, so
//! it is never under that small launcher's own 2 MiB.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::Result;

/// How much of an answer's beginning is looked at for its status.
const HEAD: usize = 4096;

/// What one run cost.
#[derive(Clone, Copy)]
pub struct Cost {
    /// From the start until its output was read to the end.
    pub wall: Duration,
    /// Processor time, user and system, of the command itself.
    pub own: Duration,
    /// The same with all its children.
    pub all: Duration,
    /// Of the largest process, in KiB.
    pub peak: u64,
    /// Bytes of output.
    pub sent: u64,
}

/// The launcher: runs `command` with this process's environment and prints its cost.
pub fn launch(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("--measure: no command")?;
    let started = Instant::now();
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    let (mut head, mut sent, mut buffer) = (Vec::new(), 0, [0; 64 * 1024]);
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sent += count;
        let missing = HEAD.saturating_sub(head.len()).min(count);
        head.extend_from_slice(&buffer[..missing]);
    }
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let wall = started.elapsed();
    let own = clock_getcpuclockid(pid)?.now()?.num_microseconds();
    let exit = child.wait()?;
    let status =
        String::from_utf8_lossy(&head).lines().find_map(|line| line.strip_prefix("Status: ").map(str::to_owned));
    if !exit.success() || status.as_ref().is_some_and(|status| !status.starts_with("200")) {
        return Err(
            format!("{program:?}: {exit}, {}\n{}", status.unwrap_or_default(), String::from_utf8_lossy(&head)).into()
        );
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let all = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    println!("{} {own} {all} {} {sent}", wall.as_micros(), usage.max_rss());
    Ok(())
}

/// Runs a command with just these environment variables and returns its cost.
pub fn cost<N: AsRef<OsStr>, V: AsRef<OsStr>>(command: &[&OsStr], variables: &[(N, V)]) -> Result<Cost> {
    let variables = variables.iter().map(|(name, value)| (name, value));
    let output =
        Command::new(env::current_exe()?).arg("--measure").args(command).env_clear().envs(variables).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let line = String::from_utf8(output.stdout)?;
    let numbers = line.split_whitespace().map(u64::from_str).collect::<std::result::Result<Vec<_>, _>>()?;
    let &[wall, own, all, peak, sent] = numbers.as_slice() else { return Err("the launcher printed no cost".into()) };
    let [wall, own, all] = [wall, own, all].map(Duration::from_micros);
    Ok(Cost { wall, own, all, peak, sent })
}
