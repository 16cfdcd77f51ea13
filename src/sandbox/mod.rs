//! The cage: whatever a process reads that strangers wrote, it reads without the rights to do harm. It opens no
//! file any more but in the folder of its own, starts no program and makes no connection (landlock(7), seccomp(2),
//! setrlimit(2)). What it started before keeps its rights.
//!
//! A kernel that can't hold it does not stop anything: [`Cage::gap`] tells, and so does every page.

pub mod worker;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, path_beneath_rules,
};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What may still be used: open files, memory for data in bytes, processor time in seconds, and what is left of a
/// process that crashed, in bytes.
const LIMITS: [(Resource, u64); 4] = [
    (Resource::RLIMIT_NOFILE, 64),
    (Resource::RLIMIT_DATA, 256 << 20),
    (Resource::RLIMIT_CPU, 60),
    (Resource::RLIMIT_CORE, 0),
];

/// The rights that are dealt with: those of Linux 6.2. Of these an older kernel deals with what it knows.
const KNOWN: ABI = ABI::V3;

/// What is done with the files of the own folder: those of SQLite.
fn own_files() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
}

/// The system calls that are left: for reading, writing and waiting, for memory, time and threads, and for files as
/// far as Landlock allows them.
const CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    // Whoever is still listing is ended at the deadline.
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same by the names that they have on some processors alone.
#[cfg(target_arch = "x86_64")]
const OTHER_CALLS: &[libc::c_long] =
    &[libc::SYS_access, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const OTHER_CALLS: &[libc::c_long] =
    &[libc::SYS_faccessat, libc::SYS_ppoll, libc::SYS_readlinkat, libc::SYS_renameat, libc::SYS_unlinkat];

/// And those of musl, a smaller C library.
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
const MUSL_CALLS: &[libc::c_long] =
    &[libc::SYS_fstatfs, libc::SYS_lstat, libc::SYS_nanosleep, libc::SYS_open, libc::SYS_readv, libc::SYS_stat];
#[cfg(all(target_env = "musl", not(target_arch = "x86_64")))]
const MUSL_CALLS: &[libc::c_long] = &[libc::SYS_fstatfs, libc::SYS_nanosleep, libc::SYS_readv];
#[cfg(not(target_env = "musl"))]
const MUSL_CALLS: &[libc::c_long] = &[];

/// What asking name servers and mail servers takes besides.
const NETWORK_CALLS: &[libc::c_long] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// That this thread is in the cage, as far as this system can hold it.
#[derive(Debug)]
pub struct Cage {
    gap: Option<String>,
}

impl Cage {
    /// Shuts this thread in, and those that it starts from now on: there is no way out. In `folder` files can still
    /// be made, read and written.
    pub fn enter(folder: Option<&Path>) -> Cage {
        limit();
        let files = restrict(folder, AccessNet::from_all(ABI::V4));
        Cage::of(files, filter(&[]))
    }

    /// The same for a thread that asks name servers and mail servers, and opens no file at all.
    pub fn enter_with_network() -> Cage {
        limit();
        Cage::of(restrict(None, BitFlags::EMPTY), filter(NETWORK_CALLS))
    }

    fn of(files: Result<(), String>, calls: Result<(), String>) -> Cage {
        let gaps: Vec<_> = [files, calls].into_iter().filter_map(Result::err).collect();
        Cage { gap: (!gaps.is_empty()).then(|| gaps.join("; ")) }
    }

    /// Why it does not hold; `None` if it does.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }
}

/// Lowers the limits of this process, where they are higher.
fn limit() {
    for (resource, most) in LIMITS {
        if let Ok((soft, hard)) = getrlimit(resource) {
            // Lowering is always allowed.
            let _ = setrlimit(resource, soft.min(most), hard.min(most));
        }
    }
}

/// No file but those below `folder`, and no connection of these kinds.
fn restrict(folder: Option<&Path>, connections: BitFlags<AccessNet>) -> Result<(), String> {
    let enforced = || -> Result<RestrictionStatus, RulesetError> {
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
        if !connections.is_empty() {
            rules = rules.handle_access(connections)?;
        }
        rules.create()?.add_rules(path_beneath_rules(folder, own_files()))?.restrict_self()
    };
    match enforced() {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => Err("this kernel has no Landlock".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Landlock: {error}")),
    }
}

/// No system call but [`CALLS`] and `more`; another is answered as one that the kernel does not have.
fn filter(more: &[libc::c_long]) -> Result<(), String> {
    let program = || -> Result<BpfProgram, BackendError> {
        let calls = [CALLS, OTHER_CALLS, MUSL_CALLS, more].concat();
        let mut rules: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
        let threads = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
        rules.insert(libc::SYS_clone, vec![only(0, threads, libc::CLONE_THREAD as u64)?]);
        if !more.is_empty() {
            let internet = [libc::AF_INET, libc::AF_INET6].map(|family| only(0, SeccompCmpOp::Eq, family as u64));
            rules.insert(libc::SYS_socket, internet.into_iter().collect::<Result<_, _>>()?);
            rules.insert(libc::SYS_ioctl, vec![only(1, SeccompCmpOp::Eq, libc::FIONBIO)?]);
        }
        let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
        SeccompFilter::new(rules, refusal, SeccompAction::Allow, TargetArch::try_from(ARCH)?)?.try_into()
    };
    let program = program().map_err(|error| format!("seccomp: {error}"))?;
    seccompiler::apply_filter(&program).map_err(|error| format!("this kernel has no seccomp filters ({error})"))
}

/// A system call with that argument alone.
fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}
