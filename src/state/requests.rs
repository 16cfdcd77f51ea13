//! How many requests are under way: each has a place, and the kernel frees it when the request's process ends, however
//! it ends.
//!
//! A place is a lock on one byte of a file that stays empty (`F_OFD_SETLK`, fcntl(2); a byte need not exist to be
//! locked). One is among those of everybody, and one among those of the client's address, whose bytes stand where the
//! address says: so nothing is written, and nobody has to be waited for.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::Records;

/// How many requests are under way at a time.
const ALL: u32 = 64;

/// How many of them come from one address.
const OF_ONE: u32 = 24;

/// The file whose bytes are locked.
const FILE: &str = "requests.lock";

/// Where the places of the addresses begin, and how far those of two addresses are apart.
const ADDRESSES: u64 = 1 << 62;
const APART: u64 = 32;

/// A place among the requests under way, until it is dropped in this process and in all that it was copied to.
#[derive(Debug)]
pub(crate) struct RequestPlace {
    _file: Option<File>,
}

impl RequestPlace {
    /// The place where there is no limit.
    pub(crate) const UNLIMITED: RequestPlace = RequestPlace { _file: None };
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowd {
    /// Too many requests are under way.
    #[error("{ALL} requests are being answered, and there is no room for another one.")]
    All,
    /// Too many of them come from this address.
    #[error("{OF_ONE} requests from your address are being answered, and there is no room for another one.")]
    OfOne,
}

impl Records {
    /// Takes a place for a request from this address, without waiting. Where the file can't be used there is no limit.
    ///
    /// # Errors
    /// [`Crowd`]
    pub(crate) fn request_place(&self, address: Option<IpAddr>) -> Result<RequestPlace, Crowd> {
        let Ok(file) = self.locks.file(FILE) else { return Ok(RequestPlace::UNLIMITED) };
        // An address that has them all never takes one of everybody's, not even for a moment.
        if let Some(first) = address.map(first_byte)
            && !take_one(&file, first..first + u64::from(OF_ONE))
        {
            return Err(Crowd::OfOne);
        }
        if take_one(&file, 0..u64::from(ALL)) { Ok(RequestPlace { _file: Some(file) }) } else { Err(Crowd::All) }
    }
}

/// Locks the first byte of these that is free. Where this system knows no such locks, each seems to be.
fn take_one(file: &File, bytes: Range<u64>) -> bool {
    let is_taken = |byte: u64| {
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::try_from(byte).unwrap_or(libc::off_t::MAX),
            l_len: 1,
            l_pid: 0,
        };
        matches!(fcntl(file, FcntlArg::F_OFD_SETLK(&lock)), Err(Errno::EAGAIN | Errno::EACCES))
    };
    !bytes.into_iter().all(is_taken)
}

/// The first byte of an address's places. A network of IPv6 counts as one address, as each of its machines has as many
/// addresses as it likes (RFC 8981): its 64 bits are hashed, as they would not fit.
fn first_byte(address: IpAddr) -> u64 {
    let number = match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let mut hasher = DefaultHasher::new();
            address.segments()[..4].hash(&mut hasher);
            (1 << 32) + (hasher.finish() >> 10)
        }
    };
    ADDRESSES + number * APART
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn so_many_requests_of_one_address_are_under_way_and_so_many_of_all() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let take = |from: &str| records.request_place(address(from));
        let mut of_one: Vec<_> = (0..OF_ONE).map(|_| take("192.0.2.1").unwrap()).collect();
        assert_eq!(take("192.0.2.1").unwrap_err(), Crowd::OfOne);
        assert_eq!(take("::ffff:192.0.2.1").unwrap_err(), Crowd::OfOne, "it is the same address");
        let _of_two: Vec<_> = (0..OF_ONE).map(|_| take("192.0.2.2").unwrap()).collect();
        let _of_others: Vec<_> = (2 * OF_ONE..ALL).map(|_| records.request_place(None).unwrap()).collect();
        assert_eq!(take("192.0.2.3").unwrap_err(), Crowd::All);
        assert_eq!(records.request_place(None).unwrap_err(), Crowd::All);
        assert_eq!(take("192.0.2.1").unwrap_err(), Crowd::OfOne);
        of_one.pop();
        let last = take("192.0.2.3").unwrap();
        assert_eq!(take("192.0.2.3").unwrap_err(), Crowd::All);
        drop(last);
        assert!(take("192.0.2.1").is_ok());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_no_two_others_share_a_place() {
        let first = |text: &str| first_byte(text.parse().unwrap());
        assert_eq!(first("2001:db8::1"), first("2001:db8::ffff:1"));
        let all = ["0.0.0.0", "0.0.0.1", "255.255.255.255", "2001:db8::", "2001:db8:0:1::", "::", "fe80::"].map(first);
        for (index, one) in all.iter().enumerate() {
            assert!(i64::try_from(*one + APART).is_ok(), "{one}");
            assert!(all[..index].iter().all(|other| other.abs_diff(*one) >= APART));
        }
    }

    #[test]
    fn without_its_file_there_is_no_limit() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join(FILE)).unwrap();
        let places: Vec<_> = (0..2 * ALL).map(|_| records.request_place(address("::1"))).collect();
        assert!(places.iter().all(Result::is_ok));
    }
}
