//! What is on its way to standard output, at the pace of its reader: what can't be sent yet waits in memory, and then
//! in a file without a name, so that nobody else waits for a reader who is slow.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::destination::{CHUNK, Destination};
use super::poll::{READABLE, WRITABLE, ready};
use super::{EndingSignals, Scratch, ScratchFile, log};

/// How much waits in memory, in bytes.
const HELD: usize = 1024 * 1024;

/// How long a reader may take nothing at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a reader may take for the rest after a signal that ends this process. (Apache follows it up with SIGKILL after
/// three seconds.)
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Bytes on their way to standard output.
///
/// They become whole piece by piece ([`Output::seal`]): what was not sealed can be taken back, and is never sent.
pub(crate) struct Output {
    destination: Destination,
    patience: Duration,
    /// Behind what was sent: first this, then what the file holds, then this tail, where the file took no more.
    memory: Vec<u8>,
    file: Option<Overflow>,
    tail: Vec<u8>,
    scratch: Option<Scratch>,
    has_room: bool,
    /// Whether the error log already says that there is no room.
    is_said: bool,
    /// Bytes of `memory` that were sent already.
    sent: usize,
    /// Bytes at the end that are not sealed.
    open: usize,
    /// Whether nothing is to be sent yet.
    held_back: bool,
    /// Whether anything was sent.
    begun: bool,
    /// When the reader last took something, or was first offered it.
    progress: Instant,
}

/// The file, and how much of it was read back.
struct Overflow {
    file: ScratchFile,
    read: u64,
    written: u64,
}

impl Output {
    /// Nothing so far. What does not fit into memory goes to a file of `scratch`, where there is that.
    ///
    /// # Errors
    /// Standard output is not open.
    pub(crate) fn new(scratch: Option<&Scratch>) -> io::Result<Self> {
        Ok(Output::to(Destination::stdout()?, scratch))
    }

    fn to(destination: Destination, scratch: Option<&Scratch>) -> Self {
        Output {
            destination,
            patience: PATIENCE,
            memory: Vec::new(),
            file: None,
            tail: Vec::new(),
            scratch: scratch.cloned(),
            has_room: true,
            is_said: false,
            sent: 0,
            open: 0,
            held_back: false,
            begun: false,
            progress: Instant::now(),
        }
    }

    /// The same, of which nothing is sent before it is known what stands in front, see [`Output::release`].
    ///
    /// # Errors
    /// As [`Output::new`].
    pub(crate) fn held_back(scratch: Option<&Scratch>) -> io::Result<Self> {
        Ok(Output { held_back: true, ..Output::new(scratch)? })
    }

    /// Whether nothing is to be sent yet.
    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Whether so much is held back that it is time to release it. Where no more finds room that is so at any rate:
    /// nothing would ever come behind it.
    pub(crate) fn is_full(&self) -> bool {
        self.held_back && (!self.has_room || self.len() - self.open as u64 > HELD as u64)
    }

    /// Whether anything was sent, which can't be taken back.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Lets it go, behind these bytes.
    pub(crate) fn release(&mut self, front: &[u8]) {
        self.memory.splice(self.sent..self.sent, front.iter().copied());
        self.held_back = false;
        self.progress = Instant::now();
    }

    /// Forgets all that was not sent.
    pub(crate) fn clear(&mut self) {
        (self.memory, self.tail, self.file) = (Vec::new(), Vec::new(), None);
        (self.sent, self.open, self.has_room) = (0, 0, true);
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.open += bytes.len();
        if self.sent > CHUNK {
            self.memory.drain(..self.sent);
            self.sent = 0;
        }
        let in_file = self.file.as_ref().is_some_and(|file| file.read < file.written);
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(bytes);
        } else if !in_file && self.memory.len() - self.sent + bytes.len() <= HELD {
            self.memory.extend_from_slice(bytes);
        } else if let Err(error) = self.spill(bytes) {
            self.tail.extend_from_slice(bytes);
            self.has_room = false;
            if !mem::replace(&mut self.is_said, true) {
                log(&format!("the answer waits for its reader, as there is no room to keep it in: {error}"));
            }
        }
    }

    fn spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let scratch = self.scratch.as_ref().ok_or(io::ErrorKind::NotFound)?;
            self.file = Some(Overflow { file: scratch.file()?, read: 0, written: 0 });
        }
        let Some(Overflow { file, written, .. }) = &mut self.file else { return Ok(()) };
        file.write_all_at(bytes, *written)?;
        *written += bytes.len() as u64;
        Ok(())
    }

    /// Adds bytes that make all that was added whole. Where nothing else waits, they are sent at once, as far as the
    /// reader takes them.
    ///
    /// # Errors
    /// As [`Output::send`].
    pub(crate) fn push_whole(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.len() == 0 && !self.held_back && !self.destination.blocks {
            while !rest.is_empty() {
                match nix::unistd::write(&self.destination.to, rest) {
                    Ok(length) => {
                        rest = &rest[length..];
                        self.begun |= length > 0;
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.progress = Instant::now();
        }
        if !rest.is_empty() {
            self.push(rest);
        }
        self.seal();
        Ok(())
    }

    /// Whether more can be added without taking memory; where not, it is time to wait for the reader.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Makes all that was added whole.
    pub(crate) fn seal(&mut self) {
        if !self.is_ready() {
            self.progress = Instant::now();
        }
        self.open = 0;
    }

    /// Takes back what was added since it was sealed.
    pub(crate) fn take_back(&mut self) {
        let mut left = mem::take(&mut self.open);
        let in_tail = left.min(self.tail.len());
        self.tail.truncate(self.tail.len() - in_tail);
        left -= in_tail;
        if let Some(Overflow { read, written, .. }) = &mut self.file {
            let in_file = (left as u64).min(*written - *read);
            *written -= in_file;
            left -= in_file as usize;
        }
        self.memory.truncate(self.memory.len() - left);
    }

    /// Bytes that wait to be sent, those that are not sealed included.
    pub(crate) fn len(&self) -> u64 {
        let in_file = self.file.as_ref().map_or(0, |file| file.written - file.read);
        (self.memory.len() - self.sent + self.tail.len()) as u64 + in_file
    }

    /// Whether something is ready to be sent.
    pub(crate) fn is_ready(&self) -> bool {
        !self.held_back && self.len() > self.open as u64
    }

    /// When this program's patience with its reader ends: something is ready, and nothing was taken for a minute.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        self.is_ready().then(|| self.progress + self.patience)
    }

    /// Sends a piece. To be called when there is room for one.
    ///
    /// # Errors
    /// Those of write(2): the reader has left, say.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.sent == self.memory.len() {
            self.refill()?;
        }
        let ready = (self.len() - self.open as u64).min(self.destination.piece as u64) as usize;
        let piece = &self.memory[self.sent..][..ready.min(self.memory.len() - self.sent)];
        match nix::unistd::write(&self.destination.to, piece) {
            Ok(length) => {
                self.sent += length;
                self.begun |= length > 0;
                self.progress = Instant::now();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Brings what is next to memory.
    fn refill(&mut self) -> io::Result<()> {
        self.memory.clear();
        self.sent = 0;
        match &mut self.file {
            Some(Overflow { file, read, written }) if *read < *written => {
                let length = (*written - *read).min(CHUNK as u64);
                self.memory.resize(length as usize, 0);
                file.read_exact_at(&mut self.memory, *read)?;
                *read += length;
            }
            _ => {
                if let Some(Overflow { file, read, written }) = &mut self.file {
                    (*read, *written) = (0, 0);
                    // Gives the room back; where it can't be, it is used again.
                    let _ = file.empty();
                }
                mem::swap(&mut self.memory, &mut self.tail);
                self.has_room = true;
            }
        }
        Ok(())
    }

    /// Sends all that is sealed. A signal that ends this process meanwhile does so, where it is not held back; where it
    /// is, the reader gets a moment for what is left.
    ///
    /// # Errors
    /// As [`Output::send`]; [`io::ErrorKind::TimedOut`]: the reader took nothing for a minute, or too little after a signal.
    pub(crate) fn finish(&mut self, signals: Option<&EndingSignals>) -> io::Result<()> {
        let mut last = None;
        while let Some(stalls_at) = self.stalls_at() {
            let left = last.map_or(stalls_at, |last| stalls_at.min(last)).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let signals = signals.filter(|_| last.is_none()).map(AsFd::as_fd);
            let found = ready(&[(signals, READABLE), (Some(self.destination.to.as_fd()), WRITABLE)], left);
            let [arrived, writable] = found[..] else { continue };
            if !arrived.is_empty() {
                last = Some(Instant::now() + LAST_MOMENT);
            }
            if !writable.is_empty() {
                self.send()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::stat::fstat;
    use nix::unistd::pipe2;
    use tempfile::TempDir;

    use super::*;
    use crate::system::Reserve;
    use crate::system::destination::PIECE;

    /// An output, its reader, who takes a page at most before he is waited for, and the folder of its file.
    struct Scene {
        output: Output,
        reader: File,
        folder: TempDir,
    }

    impl Scene {
        fn new() -> Scene {
            let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let scratch = Scratch::new(folder.path().to_owned(), Reserve::Bytes(0));
            Scene {
                output: Output::to(Destination { to: writer, piece: PIECE, blocks: true }, Some(&scratch)),
                reader: reader.into(),
                folder,
            }
        }

        fn without_room() -> Scene {
            let mut scene = Scene::new();
            scene.output.scratch = None;
            scene
        }

        /// What the reader finds now.
        fn read(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            let _ = self.reader.read_to_end(&mut bytes);
            bytes
        }

        /// All that is ready, as the reader gets it.
        fn drain(&mut self) -> Vec<u8> {
            let mut all = Vec::new();
            while self.output.is_ready() {
                self.output.send().unwrap();
                all.append(&mut self.read());
            }
            all
        }

        /// From now on the file takes no more.
        fn close_file(&mut self) {
            self.output.file.as_mut().unwrap().file.close();
        }

        /// How much waits in memory, in the file, and behind it.
        fn places(&self) -> (usize, u64, usize) {
            let output = &self.output;
            let in_file = output.file.as_ref().map_or(0, |file| file.written - file.read);
            (output.memory.len() - output.sent, in_file, output.tail.len())
        }
    }

    /// So many bytes, no two pieces of which are alike.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length.div_ceil(4)).flat_map(|number| (number as u32).to_le_bytes()).take(length).collect()
    }

    #[test]
    fn what_does_not_fit_into_memory_waits_in_a_file_and_then_behind_it_and_comes_in_its_order() {
        let mut scene = Scene::new();
        let all = bytes(3 * HELD);
        let (first, rest) = all.split_at(HELD);
        let (second, third) = rest.split_at(HELD);
        scene.output.push(first);
        assert_eq!(scene.places(), (HELD, 0, 0));
        scene.output.push(second);
        assert_eq!((scene.places(), scene.output.has_room()), ((HELD, HELD as u64, 0), true));
        scene.close_file();
        scene.output.push(third);
        assert_eq!((scene.places(), scene.output.has_room()), ((HELD, HELD as u64, HELD), false));
        assert!(!scene.output.is_ready(), "nothing of it is whole");
        scene.output.seal();
        assert!(scene.drain() == all && scene.output.has_room());
        assert_eq!(scene.places(), (0, 0, 0));
        assert_eq!(std::fs::read_dir(scene.folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn the_rooms_of_a_reader_who_goes_on_and_off_are_used_again() {
        let mut scene = Scene::new();
        let (mut pushed, mut read) = (Vec::new(), Vec::new());
        for round in 1..60_usize {
            let piece = bytes(round * 7_919 % 200_000);
            scene.output.push(&piece);
            // Every third is taken back.
            if round % 3 == 0 {
                scene.output.take_back();
            } else {
                scene.output.seal();
                pushed.extend_from_slice(&piece);
            }
            for _ in 0..round * 13 % 20 {
                if scene.output.is_ready() {
                    scene.output.send().unwrap();
                    read.append(&mut scene.read());
                }
            }
        }
        read.append(&mut scene.drain());
        assert!(read == pushed, "{} of {}", read.len(), pushed.len());
        scene.output.send().unwrap();
        let file = &scene.output.file.as_ref().unwrap().file;
        assert_eq!(fstat(file).unwrap().st_size, 0, "its room is given back");
    }

    #[test]
    fn what_was_not_sealed_is_taken_back_wherever_it_waits() {
        let mut scene = Scene::new();
        let (whole, open) = (bytes(1000), bytes(HELD));
        scene.output.push(&whole);
        scene.output.seal();
        scene.output.push(&open[..HELD - 1000]);
        scene.output.push(&open);
        scene.close_file();
        scene.output.push(&open);
        assert_eq!(scene.places(), (HELD, HELD as u64, HELD));
        scene.output.take_back();
        assert_eq!((scene.places(), scene.output.len()), ((1000, 0, 0), 1000));
        assert!(scene.drain() == whole);
        scene.output.take_back();
        assert_eq!(scene.output.len(), 0);
    }

    #[test]
    fn what_is_held_back_is_released_behind_its_front_or_forgotten() {
        let mut scene = Scene::new();
        scene.output.held_back = true;
        scene.output.push(b"body");
        scene.output.seal();
        assert!(scene.output.is_held_back() && !scene.output.is_ready() && !scene.output.is_full());
        assert_eq!(scene.output.stalls_at(), None, "nobody is waited for");
        scene.output.clear();
        scene.output.push(b"another");
        scene.output.seal();
        scene.output.release(b"head, ");
        assert!(!scene.output.has_begun());
        assert_eq!((scene.drain(), scene.output.has_begun()), (b"head, another".to_vec(), true));
        scene.output.held_back = true;
        scene.output.push(&bytes(HELD + 1));
        assert!(!scene.output.is_full(), "nothing of it is whole");
        scene.output.seal();
        assert!(scene.output.is_full());
    }

    /// Nothing more came where a message of more than a MiB found no room while it was held back.
    #[test]
    fn what_is_held_back_and_finds_no_room_is_released_even_if_nothing_is_whole() {
        let mut scene = Scene::without_room();
        scene.output.held_back = true;
        scene.output.push(&bytes(HELD + 1));
        assert!(!scene.output.has_room() && scene.output.is_full());
        scene.output.release(b"");
        scene.output.seal();
        assert!(scene.drain() == bytes(HELD + 1) && scene.output.has_room());
    }

    #[test]
    fn patience_with_a_reader_ends_a_minute_after_what_it_took_last() {
        let mut scene = Scene::new();
        assert_eq!(scene.output.stalls_at(), None, "there is nothing to take");
        let before = Instant::now();
        scene.output.push(&bytes(100_000));
        scene.output.seal();
        let offered = scene.output.stalls_at().unwrap();
        assert!((before + PATIENCE..=Instant::now() + PATIENCE).contains(&offered));
        scene.output.send().unwrap();
        let taken = scene.output.stalls_at().unwrap();
        assert!(taken > offered);
        scene.output.send().unwrap();
        scene.output.push(b"more");
        scene.output.seal();
        assert_eq!(scene.output.stalls_at(), Some(taken), "the pipe was full, and more to take is no progress");
        scene.output.patience = Duration::ZERO;
        assert_eq!(scene.output.finish(None).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(scene.reader);
        scene.output.patience = PATIENCE;
        assert_eq!(scene.output.finish(None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
