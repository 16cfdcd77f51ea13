//! The sandbox: what strangers wrote is read by a process without the rights to do harm. It opens no file, starts no
//! program, makes no connection, ends no other process, and has no memory that it could both write and run
//! (landlock(7), seccomp(2), setrlimit(2)). What it was given before, its pipes, is all that it has.
//!
//! A kernel that can't hold it does not stop anything: [`Sandbox::gap`] says so, and so does every page.

pub(crate) mod worker;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetError, RulesetStatus,
};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::system::Free;

/// What may still be used, besides the length of files: open files, memory for data in bytes, processor time in seconds,
/// and what is left of a process that crashed, in bytes.
const LIMITS: [(Resource, u64); 4] = [
    (Resource::RLIMIT_NOFILE, 64),
    (Resource::RLIMIT_DATA, 256 << 20),
    (Resource::RLIMIT_CPU, 60),
    (Resource::RLIMIT_CORE, 0),
];

/// The rights that are dealt with: those of Linux 6.2. Of these an older kernel deals with those it knows.
const KNOWN: ABI = ABI::V3;

/// The system calls of every sandbox: for what is open, for memory, for time and for waiting. Those with a condition stand in
/// [`filter`].
const CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_write,
    libc::SYS_writev,
];

/// And of musl, a smaller C library.
#[cfg(target_env = "musl")]
const MUSL_CALLS: &[libc::c_long] = &[libc::SYS_readv];
#[cfg(not(target_env = "musl"))]
const MUSL_CALLS: &[libc::c_long] = &[];

/// What asking name servers and mail servers takes besides: sockets, threads, and waiting for them.
const NETWORK_CALLS: &[libc::c_long] = &[
    libc::SYS_bind,
    libc::SYS_clock_nanosleep,
    libc::SYS_connect,
    libc::SYS_fcntl,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    #[cfg(target_env = "musl")]
    libc::SYS_nanosleep,
];

/// What a process in the sandbox is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It reads what it is given, and may have one file to write to.
    Reading {
        /// How long that file may become, in bytes.
        room: u64,
    },
    /// It asks name servers and mail servers.
    Asking,
}

/// The proof that this process is in the sandbox, as far as this system can hold it.
#[derive(Debug)]
pub struct Sandbox {
    gap: Option<String>,
}

impl Sandbox {
    /// Shuts this process in, with the threads that it starts from now on: there is no way out.
    pub fn enter(_: Free, purpose: Purpose) -> Sandbox {
        let alone = is_alone();
        let room = match purpose {
            Purpose::Reading { room } => room,
            Purpose::Asking => 0,
        };
        // What is beyond its limit is then an error of write(2), and not the end. It can't fail: the set is a valid one.
        let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
        for (resource, most) in LIMITS.into_iter().chain([(Resource::RLIMIT_FSIZE, room)]) {
            if let Ok((soft, hard)) = getrlimit(resource) {
                // Lowering is always allowed.
                let _ = setrlimit(resource, soft.min(most), hard.min(most));
            }
        }
        let gaps: Vec<_> = [alone, restrict(purpose), filter(purpose)]
            .into_iter()
            .filter_map(|held| held.err().map(|gap| gap.to_string()))
            .collect();
        Sandbox { gap: (!gaps.is_empty()).then(|| gaps.join("; ")) }
    }

    /// Why it does not hold; `None` if it does.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }
}

/// Why a part of the sandbox does not hold.
#[derive(Debug, thiserror::Error)]
enum Gap {
    #[error("another thread runs beside it")]
    Thread,
    #[error("this kernel has no Landlock")]
    NoLandlock,
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("this kernel has no seccomp filters ({0})")]
    NoSeccomp(seccompiler::Error),
    #[error("seccomp: {0}")]
    Seccomp(#[from] BackendError),
}

/// Whether this is the only thread: landlock(7) binds the thread that asks, and those that it starts.
fn is_alone() -> Result<(), Gap> {
    // The folder has a link from itself, one from its parent, and one from each thread's folder. Without /proc it is
    // not known; a branch of a process begins with one thread.
    let threads = fs::metadata("/proc/self/task").map_or(1, |folder| folder.nlink().saturating_sub(2));
    if threads > 1 { Err(Gap::Thread) } else { Ok(()) }
}

/// No file at all, and, but for a process that asks, no connection.
fn restrict(purpose: Purpose) -> Result<(), Gap> {
    let connections = match purpose {
        Purpose::Reading { .. } => AccessNet::from_all(ABI::V4),
        Purpose::Asking => BitFlags::EMPTY,
    };
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
    if !connections.is_empty() {
        rules = rules.handle_access(connections)?;
    }
    let status: RestrictionStatus = rules.create()?.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced { Err(Gap::NoLandlock) } else { Ok(()) }
}

/// No system call but those of the lists above, and a few for this process itself alone; another is answered as one
/// that the kernel does not have.
fn filter(purpose: Purpose) -> Result<(), Gap> {
    let program = || -> Result<BpfProgram, BackendError> {
        let more = if purpose == Purpose::Asking { NETWORK_CALLS } else { &[] };
        let calls = [CALLS, MUSL_CALLS, more].concat();
        let mut rules: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
        // Memory is for data: none can be run.
        let no_code = || only(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
        rules.insert(libc::SYS_mmap, vec![no_code()?]);
        rules.insert(libc::SYS_mprotect, vec![no_code()?]);
        // abort(3) ends this process by a signal to itself.
        let itself = only(0, SeccompCmpOp::Eq, u64::from(process::id()))?;
        rules.insert(libc::SYS_tgkill, vec![itself]);
        if purpose == Purpose::Asking {
            let threads = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
            rules.insert(libc::SYS_clone, vec![only(0, threads, libc::CLONE_THREAD as u64)?]);
            let internet = [libc::AF_INET, libc::AF_INET6].map(|family| only(0, SeccompCmpOp::Eq, family as u64));
            rules.insert(libc::SYS_socket, internet.into_iter().collect::<Result<_, _>>()?);
            // Its type is not the same with every C library.
            rules.insert(libc::SYS_ioctl, vec![only(1, SeccompCmpOp::Eq, u64::from(libc::FIONBIO as u32))?]);
        }
        let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
        SeccompFilter::new(rules, refusal, SeccompAction::Allow, TargetArch::try_from(ARCH)?)?.try_into()
    };
    seccompiler::apply_filter_all_threads(&program()?).map_err(Gap::NoSeccomp)
}

/// A system call with that argument alone.
fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}
