//! Sockets by which processes of one user hand each other open files (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg};
use nix::unistd::geteuid;

use super::raw;

/// The most files that are handed over at once.
pub(crate) const MOST_FILES: usize = 32;

/// Whether the process at the other end is one of this user's, as the kernel says.
pub(crate) fn is_of_this_user(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

/// Sends bytes, as far as there is room, and with the first of them these files. Nobody is waited for.
///
/// # Errors
/// Those of sendmsg(2); [`io::ErrorKind::WouldBlock`]: there is no room.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let handed = [ControlMessage::ScmRights(&files)];
    let handed = if files.is_empty() { &[][..] } else { &handed };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], handed, flags, None)?)
}

/// Receives what there is, at most so much as the buffer holds, and puts the files that came with it to the others.
/// Returns how much it was, nothing at the end. Nobody is waited for.
///
/// # Errors
/// Those of recvmsg(2); [`io::ErrorKind::WouldBlock`]: there is nothing.
pub(crate) fn receive(stream: &UnixStream, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = cmsg_space!([RawFd; MOST_FILES]);
    let mut buffers = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(handed) = message {
            files.extend(handed.into_iter().map(raw::own));
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_come_open_with_the_bytes_that_they_were_sent_with() {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(is_of_this_user(&one));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(send(&one, b"two", &[file.as_fd(), file.as_fd()]).unwrap(), 3);
        assert_eq!(send(&one, b"none", &[]).unwrap(), 4);
        let (mut buffer, mut files) = ([0; 99], Vec::new());
        assert_eq!((receive(&other, &mut buffer, &mut files).unwrap(), files.len()), (3, 2));
        assert_eq!((receive(&other, &mut buffer, &mut files).unwrap(), files.len()), (4, 2));
        let mut text = String::new();
        let mut handed = File::from(files.remove(0));
        handed.rewind().unwrap();
        handed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        let kind = |result: io::Result<usize>| result.unwrap_err().kind();
        assert_eq!(kind(receive(&other, &mut buffer, &mut files)), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(receive(&other, &mut buffer, &mut files).unwrap(), 0);
        assert_eq!(kind(send(&other, b"x", &[])), io::ErrorKind::BrokenPipe);
    }
}
