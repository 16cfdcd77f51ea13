//! Runs one command and prints what it cost.
//!
//! The command is started by a process of its own, this bench as `queue --measure COMMAND...`. When the
//! command has ended, and before the kernel forgets it, its processor clock is read: the time of
//! the command and its threads, but not of its children. The launcher's account of
//! ended children (`RUSAGE_CHILDREN`) then has everything together.
//!
//! Peak memory is that of the command and of the branches of itself that run at the same time, added up, as they are
//! found in /proc twice a millisecond: pages that they share count for each of them. It is never under what the
//! kernel's account has for the largest single process, the lister included; a fresh process counts what the one that
//! started it had, so that is never under the small launcher's own 2 MiB.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
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
    /// Of the command with its branches, in KiB.
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
    let (pid, ended) = (child.id(), Arc::new(AtomicBool::new(false)));
    let watched = {
        let ended = Arc::clone(&ended);
        thread::spawn(move || together(pid, &ended))
    };
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
    ended.store(true, Ordering::Relaxed);
    let together = watched.join().map_err(|_| "the memory was not watched")?;
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
    println!("{} {own} {all} {} {sent}", wall.as_micros(), together.max(usage.max_rss().unsigned_abs()));
    Ok(())
}

/// The peak of a process and its branches until it has ended, in KiB.
fn together(pid: u32, ended: &AtomicBool) -> u64 {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let peak = |pid: u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
    };
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let branches = children.split_whitespace().filter_map(|child| child.parse().ok());
        let branches = branches.filter(|child| program(*child).is_some_and(|own| Some(own) == program(pid)));
        most = most.max(peak(pid).unwrap_or_default() + branches.filter_map(peak).sum::<u64>());
        thread::sleep(Duration::from_micros(500));
    }
    most
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
