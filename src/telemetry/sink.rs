//! Where log lines go: they are kept for a moment, so that many of them are one write, and nobody waits for a reader.
//!
//! A line is kept only by a thread that says so before it parks ([`Sink::parking`]); all others' lines, and warnings, are
//! written at once, and what was kept goes with them. What standard error does not take is kept up to a bound, and
//! counted beyond it. How a line looks is left to `log`.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock::{self, Monotonic};

/// Lines are written out when they are more bytes than this, however busy the threads are.
const BATCH: usize = 16 * 1024;
/// What is kept while nobody takes it, in bytes: as much as Docker's own non-blocking mode keeps.
const KEPT_MAX: usize = 1024 * 1024;
/// A pipe that is ready takes so much without waiting: POSIX's `PIPE_BUF`, as it is on Linux.
const CHUNK: usize = 4096;
/// Of one writing out: interrupted and partial writes count, too.
const WRITES_MAX: usize = 2 * KEPT_MAX / CHUNK;
/// Signals that may come while one answer is waited for.
const INTERRUPTIONS_MAX: usize = 8;
/// How long the last lines of a process wait for a reader.
const PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether this thread writes out what is kept before it next waits for anything.
    static PARKS: Cell<bool> = const { Cell::new(false) };
}

/// When a line is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Now.
    Pressing,
    /// By the time when this thread parks, if it says when it does; else now.
    Ordinary,
}

/// Lines on their way to `W`. May be used from any thread.
#[derive(Debug)]
pub(super) struct Sink<W> {
    kept: Mutex<Kept<W>>,
    dropped: Counter,
}

#[derive(Debug)]
struct Kept<W> {
    out: W,
    /// Whether a write could wait for a reader: a file has none.
    has_reader: bool,
    /// Whole lines, but for the first if it has been begun.
    lines: Vec<u8>,
    /// Whether a part of the first has been written.
    begun: bool,
    /// Whether the last write was taken.
    works: bool,
    /// How many lines were dropped since [`Sink::flush`] last said it.
    untold: u64,
}

impl<W: Write + AsFd> Sink<W> {
    /// Nothing kept yet.
    pub(super) fn new(out: W) -> Self {
        let file = out.as_fd().try_clone_to_owned().map(File::from);
        let has_reader = !file.and_then(|file| file.metadata()).is_ok_and(|of| of.is_file());
        let (begun, works) = (false, true);
        let kept = Kept { out, has_reader, lines: Vec::new(), begun, works, untold: 0 };
        Self { kept: Mutex::new(kept), dropped: Counter::default() }
    }

    /// How many lines were dropped since the start, because nobody took them.
    pub(super) const fn dropped(&self) -> &Counter {
        &self.dropped
    }

    /// Takes one line, with its end.
    pub(super) fn line(&self, line: &[u8], urgency: Urgency) {
        let mut kept = self.lock();
        if kept.lines.len() + line.len() > KEPT_MAX {
            kept.dropped(line, &self.dropped);
        } else {
            kept.lines.extend_from_slice(line);
        }
        let waits = urgency == Urgency::Ordinary && PARKS.get();
        if !waits || kept.lines.len() > BATCH {
            kept.write_out(None, &self.dropped);
        }
    }

    /// Call it whenever this thread is about to wait for work: its lines wait for that from now on. Says how many lines
    /// were dropped, as [`Sink::flush`] does.
    pub(super) fn parking(&self) -> Option<u64> {
        PARKS.set(true);
        self.flush()
    }

    /// Writes out what is kept, as far as it is taken at once. Says how many lines were dropped, once, as soon as all
    /// others have been taken.
    pub(super) fn flush(&self) -> Option<u64> {
        self.lock().flushed(None, &self.dropped)
    }

    /// The same, but waits up to [`PATIENCE`] for whoever takes the lines.
    pub(super) fn finish(&self) -> Option<u64> {
        let end = clock::monotonic().plus(PATIENCE);
        self.lock().flushed(Some(end), &self.dropped)
    }

    /// [`Sink::flush`] for a thread that may be in the midst of it.
    pub(super) fn try_flush(&self) {
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.write_out(None, &self.dropped);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<W>> {
        // Nothing between two lines can be left half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + AsFd> Kept<W> {
    fn flushed(&mut self, until: Option<Monotonic>, dropped: &Counter) -> Option<u64> {
        self.write_out(until, dropped);
        let told =
            if self.works && self.lines.is_empty() { mem::take(&mut self.untold) } else { 0 };
        (told > 0).then_some(told)
    }

    /// Writes as much as is taken; waits for that no longer than `until`, `None` not at all.
    fn write_out(&mut self, until: Option<Monotonic>, dropped: &Counter) {
        let mut written = 0;
        for _ in 0..WRITES_MAX {
            let rest = self.lines.get(written..).unwrap_or_default();
            if rest.is_empty() || (self.has_reader && !is_ready(&self.out, until)) {
                break;
            }
            let chunk = if self.has_reader { rest.chunks(CHUNK).next() } else { Some(rest) };
            match self.out.write(chunk.unwrap_or_default()) {
                Ok(bytes) if bytes > 0 => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process may have made it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.taken(written);
                    self.give_up(dropped);
                    return;
                }
            }
        }
        self.works |= written > 0;
        self.taken(written);
    }

    fn taken(&mut self, bytes: usize) {
        if let Some(last) = bytes.checked_sub(1).and_then(|last| self.lines.get(last)) {
            self.begun = *last != b'\n';
        }
        self.lines.drain(..bytes.min(self.lines.len()));
    }

    /// Drops all but what is left of a line that has been begun: the next one begins on a line of its own.
    fn give_up(&mut self, dropped: &Counter) {
        self.works = false;
        let rest = if self.begun { first_line(&self.lines) } else { 0 };
        let lines = self.lines.split_off(rest);
        self.dropped(&lines, dropped);
    }

    fn dropped(&mut self, lines: &[u8], dropped: &Counter) {
        let count = memchr::memchr_iter(b'\n', lines).count();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        dropped.inc_by(count);
        self.untold = self.untold.saturating_add(count);
    }
}

/// How long the first line is, with its end.
fn first_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1)
}

/// Whether `out` takes a [`CHUNK`] now, or does so before `until`. What is broken is ready: the write tells.
fn is_ready(out: &impl AsFd, until: Option<Monotonic>) -> bool {
    let wait = until.map_or(Duration::ZERO, |until| until.since(clock::monotonic()));
    let Ok(wait) = Timespec::try_from(wait) else { return false };
    let mut asked = [PollFd::new(out, PollFlags::OUT)];
    for _ in 0..INTERRUPTIONS_MAX {
        match poll(&mut asked, Some(&wait)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{self, PipeReader, PipeWriter, Read};

    use super::*;

    fn piped() -> (PipeReader, Sink<PipeWriter>) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Sink::new(writer))
    }

    /// So many bytes of what was written.
    fn next(reader: &mut PipeReader, bytes: usize) -> String {
        let mut read = vec![0; bytes];
        reader.read_exact(&mut read).unwrap();
        String::from_utf8(read).unwrap()
    }

    fn is_empty(reader: &PipeReader) -> bool {
        let mut asked = [PollFd::new(reader, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).unwrap() == 0
    }

    /// On a thread of its own, which may say that it parks.
    fn on_a_thread(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(work);
        });
    }

    #[test]
    fn a_thread_that_does_not_say_when_it_parks_keeps_no_line() {
        let (mut reader, sink) = piped();
        on_a_thread(|| sink.line(b"one\n", Urgency::Ordinary));
        assert_eq!(next(&mut reader, 4), "one\n");
    }

    #[test]
    fn lines_wait_for_the_park_and_go_before_a_warning() {
        let (mut reader, sink) = piped();
        on_a_thread(|| {
            sink.parking();
            sink.line(b"one\n", Urgency::Ordinary);
            assert!(is_empty(&reader));
            sink.line(b"two\n", Urgency::Pressing);
            assert_eq!(next(&mut reader, 8), "one\ntwo\n");
            sink.line(b"three\n", Urgency::Ordinary);
            assert!(is_empty(&reader));
            sink.parking();
            assert_eq!(next(&mut reader, 6), "three\n");
        });
    }

    #[test]
    fn a_thread_that_never_parks_writes_by_the_batch() {
        let (mut reader, sink) = piped();
        on_a_thread(|| {
            sink.parking();
            for _ in 0..=BATCH / 8 {
                assert!(is_empty(&reader));
                sink.line(b"1234567\n", Urgency::Ordinary);
            }
            assert_eq!(next(&mut reader, BATCH + 8), "1234567\n".repeat(BATCH / 8 + 1));
        });
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_dropped_is_said_once() {
        let (mut reader, sink) = piped();
        let line = format!("{}\n", "x".repeat(1023));
        let lines = 2 * KEPT_MAX / line.len();
        for _ in 0..lines {
            sink.line(line.as_bytes(), Urgency::Pressing);
        }
        let dropped = sink.dropped().get();
        assert!(dropped > 0 && sink.flush().is_none(), "{dropped}");

        let left = lines - usize::try_from(dropped).unwrap();
        let (taken, told) = std::thread::scope(|scope| {
            let taken = scope.spawn(|| next(&mut reader, left * line.len()));
            (0..1000).find_map(|_| sink.finish()).map(|told| (taken.join().unwrap(), told)).unwrap()
        });
        assert_eq!((taken, told), (line.repeat(left), dropped));
        assert!(sink.flush().is_none());
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_lines_and_no_panic() {
        let (reader, sink) = piped();
        drop(reader);
        for _ in 0..3 {
            sink.line(b"one\n", Urgency::Pressing);
        }
        assert_eq!((sink.dropped().get(), sink.finish()), (3, None));
    }

    /// Takes as many bytes as it has room for, and is then full.
    struct Disk {
        room: usize,
        written: Vec<u8>,
        descriptor: File,
    }

    impl AsFd for Disk {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.descriptor.as_fd()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.room.min(bytes.len());
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.written.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_off_by_a_full_disk_is_ended_before_the_next() {
        let descriptor = tempfile::tempfile().unwrap();
        let sink = Sink::new(Disk { room: 6, written: Vec::new(), descriptor });
        sink.parking();
        for line in ["one\n", "two\n", "three\n"] {
            sink.line(line.as_bytes(), Urgency::Ordinary);
        }
        assert_eq!((sink.flush(), sink.dropped().get()), (None, 1));
        sink.line(b"four\n", Urgency::Pressing);
        sink.lock().out.room = 100;
        sink.line(b"five\n", Urgency::Pressing);
        assert_eq!((sink.flush(), sink.dropped().get()), (Some(2), 2));
        assert_eq!(String::from_utf8_lossy(&sink.lock().out.written), "one\ntwo\nfive\n");
    }
}
