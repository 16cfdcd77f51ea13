//! The filesystems as `df` would list them, the one that holds the queue first.
//!
//! `sysinfo` knows which mounts are real filesystems. `/proc/self/mountinfo` (proc_pid_mountinfo(5)) adds network
//! mounts, which `sysinfo` leaves out, and distinguishes bind mounts from the mounts that they repeat. statvfs(3) gives
//! space and inodes. A dead network mount makes any of these hang, so a worker asks wherever that may happen, and is
//! left behind when it does not answer in time.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sysinfo::{DiskRefreshKind, Disks};

use crate::config::{DiskConfig, Threshold};
use crate::sandbox::worker::Worker;
use crate::system::{Audience, Free};

/// How long all filesystems together may take to be found, and again to be measured.
const PATIENCE: Duration = Duration::from_secs(1);

/// Filesystems on other machines (mount(8), and df's own list of remote ones).
const NETWORK_TYPES: [&str; 12] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "9p",
];

/// One filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub(crate) mount: String,
    /// The device, or what stands in its place.
    pub(crate) device: String,
    /// The type, such as `ext4`.
    pub(crate) r#type: String,
    /// Size and free space; `None` where it does not answer.
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// Whether it holds the mail queue.
    pub(crate) queue: bool,
    /// How short of space or inodes it is.
    pub(crate) level: Level,
    /// Why there are no figures, if the system said why; `None` where the filesystem does not answer.
    pub(crate) error: Option<String>,
}

/// Space and inodes of a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Size in bytes; `None` where it does not answer.
    pub(crate) bytes: Option<u64>,
    /// Bytes that an ordinary user may still fill (`f_bavail`).
    pub(crate) bytes_available: Option<u64>,
    /// Inodes in all; `None` where it has no fixed number.
    pub(crate) inodes: Option<u64>,
    /// Inodes that an ordinary user may still take.
    pub(crate) inodes_available: Option<u64>,
}

/// How a filesystem compares with the configured thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Enough is free.
    Ok,
    /// Less than `[disk] warn` is free.
    Warning,
    /// Less than `[disk] critical` is free.
    Critical,
    /// It does not answer.
    Unknown,
}

/// Whether a question to a filesystem may never be answered: a network's, or a program's, may be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hanging {
    Possible,
    Impossible,
}

/// The mounts of this machine.
pub(crate) struct Mounts {
    all: Vec<Mount>,
    /// The mount points that sysinfo takes for filesystems.
    real: Option<Vec<PathBuf>>,
    hanging: Hanging,
}

impl Mounts {
    /// Finds the mounts, in hardly more than a second.
    pub(crate) fn find(free: &Free) -> Mounts {
        let all = mounts(&fs::read("/proc/self/mountinfo").unwrap_or_default());
        // Without /proc the mounts are not known.
        let possible = all.is_empty() || all.iter().any(Mount::may_hang);
        let hanging = if possible { Hanging::Possible } else { Hanging::Impossible };
        let real = within(free, hanging, Audience::default(), || {
            let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing());
            Some(disks.iter().map(|disk| disk.mount_point().to_owned()).collect::<Vec<_>>())
        });
        Mounts { all, real: real.flatten(), hanging }
    }
}

/// Measures the filesystems, in hardly more than two seconds, whatever is mounted, and as long as somebody is there.
pub(crate) fn filesystems(
    free: &Free,
    mounts: &Mounts,
    queue_directory: Option<&Path>,
    config: &DiskConfig,
    audience: Audience<'_>,
) -> Vec<Filesystem> {
    let queue = queue_directory.map(|path| {
        let resolved = within(free, mounts.hanging, audience, || fs::canonicalize(path).ok()).flatten();
        resolved.unwrap_or_else(|| path.to_owned())
    });
    let chosen = choose(&mounts.all, mounts.real.as_deref(), queue.as_deref());
    // A mount that hangs may have used up the first second. The others get time of their own.
    let usages = usages(free, &chosen, audience);
    let mut list: Vec<Filesystem> = chosen
        .into_iter()
        .zip(usages)
        .filter(|((_, queue), answer)| match answer {
            // df leaves out filesystems without blocks, too: nothing can be stored there.
            Some(Ok(usage)) => usage.bytes != Some(0),
            // A mount that this user may not enter belongs to a container or to another user's session.
            Some(Err(Errno::EACCES | Errno::EPERM)) => *queue,
            _ => true,
        })
        .map(|((mount, queue), answer)| {
            let usage = answer.and_then(Result::ok);
            Filesystem {
                mount: mount.point.to_string_lossy().into_owned(),
                device: mount.source,
                r#type: mount.kind,
                usage: usage.unwrap_or_default(),
                queue,
                level: usage.map_or(Level::Unknown, |usage| level(usage, config)),
                error: answer.and_then(Result::err).map(|error| error.desc().to_owned()),
            }
        })
        .collect();
    list.sort_by(|a, b| b.queue.cmp(&a.queue).then_with(|| a.mount.cmp(&b.mount)));
    list
}

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    root: String,
    point: PathBuf,
    kind: String,
    source: String,
}

impl Mount {
    fn is_network(&self) -> bool {
        NETWORK_TYPES.contains(&self.kind.as_str())
    }

    /// Whether a worker must ask it. The kernel answers from memory for devices of this machine.
    fn may_hang(&self) -> bool {
        self.is_network() || self.kind.starts_with("fuse") || matches!(self.kind.as_str(), "autofs" | "?")
    }

    /// A value that two mounts of one filesystem share. Subvolumes share only their device file.
    fn identity(&self) -> &str {
        if self.source.starts_with("/dev/") { &self.source } else { &self.device }
    }
}

/// Reads `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    String::from_utf8_lossy(mountinfo).lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let mut right = right.split(' ');
    Some(Mount {
        device: left.next()?.to_owned(),
        root: left.next()?.to_owned(),
        point: PathBuf::from(std::ffi::OsString::from_vec(unescape(left.next()?))),
        kind: right.next()?.to_owned(),
        source: String::from_utf8_lossy(&unescape(right.next()?)).into_owned(),
    })
}

/// Undoes escapes such as `\040` for a space.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits =
            (*first == b'\\').then(|| more.get(..3)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

/// The mounts to show, and whether each holds the queue. `real` are the mount points that sysinfo
/// takes for filesystems; without its answer, those on a device are.
fn choose(all: &[Mount], real: Option<&[PathBuf]>, queue: Option<&Path>) -> Vec<(Mount, bool)> {
    // A later mount on the same point hides an earlier one.
    let visible: HashMap<&Path, &Mount> = all.iter().map(|mount| (mount.point.as_path(), mount)).collect();
    let holder = queue.and_then(|queue| queue.ancestors().find_map(|folder| visible.get(folder).copied()));
    let is_real = |mount: &Mount| match real {
        _ if mount.is_network() => true,
        // A container's overlay lies on a filesystem that is listed itself.
        _ if mount.kind == "overlay" => mount.point == Path::new("/"),
        Some(real) => real.contains(&mount.point),
        None => mount.source.starts_with("/dev/") && mount.kind != "squashfs" && mount.kind != "devtmpfs",
    };
    let mut candidates: Vec<&Mount> = visible.into_values().filter(|mount| is_real(mount)).collect();
    // Of several mounts of one filesystem the whole one comes first, then the one nearest to the root.
    candidates.sort_by_key(|mount| (mount.root != "/", mount.point.as_os_str().len(), mount.point.clone()));
    let mut chosen: Vec<(Mount, bool)> = Vec::new();
    for mount in candidates {
        if chosen.iter().all(|(other, _)| other.identity() != mount.identity()) {
            chosen.push((mount.clone(), false));
        }
    }
    match holder {
        Some(holder) => match chosen.iter_mut().find(|(mount, _)| mount.identity() == holder.identity()) {
            Some((_, queue)) => *queue = true,
            None => chosen.push((holder.clone(), true)),
        },
        // Without /proc there is nothing to choose from, but the queue's place can still be asked, or else the root.
        None => chosen.extend(queue.or(all.is_empty().then_some(Path::new("/"))).map(|place| {
            let unknown = || "?".to_owned();
            let mount =
                Mount { device: unknown(), root: "/".into(), point: place.into(), kind: unknown(), source: unknown() };
            (mount, queue.is_some())
        })),
    }
    chosen
}

/// Asks all filesystems at once; `None` for one that does not answer by the deadline.
fn usages(free: &Free, mounts: &[(Mount, bool)], audience: Audience<'_>) -> Vec<Option<Result<Usage, Errno>>> {
    let mut usages: Vec<_> = mounts.iter().map(|(mount, _)| (!mount.may_hang()).then(|| usage(&mount.point))).collect();
    if usages.iter().all(Option::is_some) {
        return usages;
    }
    let may_hang = mounts.iter().enumerate().filter(|(_, (mount, _))| mount.may_hang());
    let workers = may_hang.map(|(index, (mount, _))| {
        let measure = |_| usage(&mount.point).map_err(|error| error as i32);
        (index, Worker::begin(free, PATIENCE, measure))
    });
    // They work side by side.
    for (index, worker) in workers.collect::<Vec<_>>() {
        // Where no worker could be started (a limit on processes), the filesystem is shown as not answering.
        let answer = worker.and_then(|worker| worker.answer_for(audience)).ok();
        usages[index] = answer.map(|answer| answer.map_err(Errno::from_raw));
    }
    usages
}

fn usage(point: &Path) -> Result<Usage, Errno> {
    let stat = statvfs(point)?;
    let unit = stat.fragment_size();
    let inodes = Some(stat.files()).filter(|inodes| *inodes > 0);
    Ok(Usage {
        bytes: Some(stat.blocks().saturating_mul(unit)),
        bytes_available: Some(stat.blocks_available().saturating_mul(unit)),
        inodes,
        inodes_available: inodes.map(|_| stat.files_available()),
    })
}

/// Does `work`; where it may hang, a worker does it, and the result is `None` when it takes too long.
fn within<T: Serialize + DeserializeOwned>(
    free: &Free,
    hanging: Hanging,
    audience: Audience<'_>,
    work: impl FnOnce() -> T,
) -> Option<T> {
    if hanging == Hanging::Impossible {
        return Some(work());
    }
    Worker::begin(free, PATIENCE, |_| work()).and_then(|worker| worker.answer_for(audience)).ok()
}

fn level(usage: Usage, config: &DiskConfig) -> Level {
    let short = |of: Threshold| match of {
        Threshold::Bytes(bytes) => usage.bytes_available.is_some_and(|free| free < bytes),
        Threshold::Percent(percent) => {
            let below = |free: Option<u64>, all: Option<u64>| match (free, all) {
                (Some(free), Some(all)) if all > 0 => (free as f64) < (all as f64) * percent / 100.0,
                _ => false,
            };
            below(usage.bytes_available, usage.bytes) || below(usage.inodes_available, usage.inodes)
        }
    };
    match (short(config.critical), short(config.warn)) {
        (true, _) => Level::Critical,
        (_, true) => Level::Warning,
        _ => Level::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /dev rw - devtmpfs devtmpfs rw
25 22 254:16 / /var rw - xfs /dev/vdb rw
26 22 254:0 /srv/www /var/www rw - ext4 /dev/vda rw
27 22 0:40 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw
28 22 0:41 / /mnt/archive\\040old rw - nfs4 nas:/archive rw
29 22 0:42 / /var/spool/postfix rw - tmpfs tmpfs rw
30 22 0:43 /a /home rw - btrfs /dev/vdc rw
31 22 0:44 /b /srv rw - btrfs /dev/vdc rw
";

    fn chosen(queue: &str) -> Vec<(String, bool)> {
        let all = mounts(MOUNTINFO);
        let real = ["/", "/var", "/var/www", "/var/lib/docker/overlay2/abc/merged", "/home", "/srv"].map(PathBuf::from);
        let mut list: Vec<_> = choose(&all, Some(&real), Some(Path::new(queue)))
            .into_iter()
            .map(|(mount, queue)| (mount.point.to_string_lossy().into_owned(), queue))
            .collect();
        list.sort();
        list
    }

    #[test]
    fn bind_mounts_overlays_and_pseudo_filesystems_are_left_out() {
        let expected = [("/", false), ("/mnt/archive old", false), ("/srv", false), ("/var", true)];
        assert_eq!(chosen("/var/spool/mqueue"), expected.map(|(point, queue)| (point.to_owned(), queue)));
    }

    #[test]
    fn the_queues_filesystem_is_listed_whatever_it_is() {
        assert!(chosen("/var/spool/postfix/deferred").contains(&("/var/spool/postfix".into(), true)));
        assert!(chosen("/home/queue").contains(&("/srv".into(), true)), "a subvolume of the same device");
    }

    #[test]
    fn without_proc_the_queues_place_is_asked_or_the_root() {
        let list = choose(&[], Some(&[]), None);
        assert_eq!((&*list[0].0.point, list[0].1, list.len()), (Path::new("/"), false, 1));
        let list = choose(&[], Some(&[]), Some(Path::new("/var/spool/postfix")));
        assert_eq!(list[0].0.point, Path::new("/var/spool/postfix"));
        assert!(list[0].1);
    }

    #[test]
    fn levels_follow_space_and_inodes() {
        let usage = |free, inodes_free| Usage {
            bytes: Some(1000),
            bytes_available: Some(free),
            inodes: Some(1000),
            inodes_available: Some(inodes_free),
        };
        let config = DiskConfig::default();
        assert_eq!(level(usage(150, 150), &config), Level::Ok);
        assert_eq!(level(usage(149, 500), &config), Level::Warning);
        assert_eq!(level(usage(500, 49), &config), Level::Critical, "inodes");
        let bytes = DiskConfig { warn: Threshold::Bytes(400), critical: Threshold::Bytes(200) };
        assert_eq!(level(usage(300, 0), &bytes), Level::Warning, "bytes say nothing of inodes");
    }

    #[test]
    fn this_machine_has_a_root_filesystem() {
        let free = Free::of_main();
        let list =
            filesystems(&free, &Mounts::find(&free), Some(Path::new("/")), &DiskConfig::default(), Audience::default());
        assert!(list[0].queue, "{list:?}");
        assert!(list[0].usage.bytes.unwrap() > 0);
        assert!(list.iter().all(|filesystem| filesystem.r#type != "proc"));
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let sleep = || std::thread::sleep(Duration::from_secs(987));
        assert_eq!(within(&Free::of_main(), Hanging::Possible, Audience::default(), sleep), None);
        assert_eq!(within(&Free::of_main(), Hanging::Possible, Audience::default(), || 5), Some(5));
    }
}
