//! What a program gets on its standard input: nothing, a line to read, a lock to hold, or both of these.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::Stdio;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The standard input with this line, if it is not empty, and this lock, if there is one: the line then stands in the
/// file that is locked. Where that can't be written to (the disk is full), the program gets the line all the same, and
/// the lock is this process's alone.
///
/// # Errors
/// Those of pipe(2), or that the line does not fit.
pub(super) fn of(line: &str, lock: Option<File>) -> io::Result<Stdio> {
    match lock {
        None if line.is_empty() => Ok(Stdio::null()),
        Some(lock) if line.is_empty() => Ok(lock.into()),
        Some(lock) => written(lock, line).map_or_else(|_| in_a_pipe(line), |lock| Ok(lock.into())),
        None => in_a_pipe(line),
    }
}

/// The file at its beginning, with this line in it and nothing else. It is written only where it is not there yet.
fn written(mut file: File, line: &str) -> io::Result<File> {
    let line = format!("{line}\n");
    let mut found = Vec::new();
    file.rewind()?;
    (&file).take(line.len() as u64 + 1).read_to_end(&mut found)?;
    if found != line.as_bytes() {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(line.as_bytes())?;
    }
    file.rewind()?;
    Ok(file)
}

/// All of the line is in the pipe before the program starts, so that nobody has to feed it.
fn in_a_pipe(line: &str) -> io::Result<Stdio> {
    let (input, mut pen) = io::pipe()?;
    // A user with many pipes gets small ones (pipe(7)): then it does not fit, and nobody would ever read it.
    fcntl(&pen, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
    pen.write_all(format!("{line}\n").as_bytes())?;
    Ok(Stdio::from(input))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::super::Free;
    use super::super::process::{Argv, NotStarted, start_with};
    use super::*;

    /// What `cat` reads.
    fn read(line: &str, lock: Option<File>) -> Result<String, NotStarted> {
        let cat = Argv::new("/bin/cat", &[]).with_input(line.into());
        let (_, output) =
            start_with(&Free::of_main(), &cat, lock)?.collect_up_to(1 << 20, Instant::now() + Duration::from_secs(20));
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_line_is_all_the_input_there_is_and_one_that_does_not_fit_keeps_nobody_waiting() {
        let line = "x".repeat(64 * 1024 - 1);
        assert_eq!(read(&line, None).unwrap(), format!("{line}\n"));
        let trouble = read(&"x".repeat(2 << 20), None).unwrap_err();
        assert!(trouble.to_string().contains("its input"), "{trouble}");
    }

    #[test]
    fn a_line_and_a_lock_are_one_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let locked = || {
            let lock = file.reopen().unwrap();
            lock.try_lock().unwrap();
            lock
        };
        for (before, line) in [("", "one"), ("one\n", "one"), ("one\nand more\n", "one"), ("on", "one"), ("one\n", "")]
        {
            fs::write(file.path(), before).unwrap();
            let after = if line.is_empty() { before.to_owned() } else { format!("{line}\n") };
            assert_eq!(read(line, Some(locked())).unwrap(), after, "{before:?}");
            assert_eq!(fs::read_to_string(file.path()).unwrap(), after, "{before:?}");
        }
        let waits = Argv::new("/bin/sh", &["-c", "read line; echo $line; exec sleep 987"]).with_input("one".into());
        let running = start_with(&Free::of_main(), &waits, Some(locked())).unwrap();
        let mut said = [0; 4];
        running.stdout().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"one\n");
        assert!(file.as_file().try_lock().is_err(), "it holds the lock");
        drop(running);
        assert!(file.as_file().try_lock().is_ok());
    }

    #[test]
    fn a_line_that_can_not_be_written_into_the_lock_is_read_all_the_same() {
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        assert_eq!(read("one", Some(full)).unwrap(), "one\n");
    }
}
