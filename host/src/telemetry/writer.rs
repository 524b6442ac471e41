//! A writer of log lines that nobody waits for.
//!
//! Owns the thread that writes and the bounded way to it. A reader that is slow,
//! gone or full loses lines, which are counted; it stops no call.

use crate::limits::limit;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 1024;

/// Bytes of one line. Longer ones are dropped and counted: half of a JSON object
/// is none.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Lines that are written at once.
const LINES_TOGETHER_MAX: usize = 64;

/// How long lines are gathered after some have been written.
const GATHER: Duration = Duration::from_millis(2);

/// How often a flush looks whether there is room for it.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);

/// Counts lines that were lost; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// How many.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way to the thread that writes; clones share it.
#[derive(Debug, Clone)]
pub(super) struct LogWriter {
    sender: SyncSender<Message>,
    dropped: Dropped,
}

impl LogWriter {
    /// Starts the thread. It ends with the last of the writers.
    pub(super) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        // The channel makes room for as many.
        let waiting_max = limit("call_log_lines_waiting", LINES_WAITING_MAX).min(1 << 16);
        let (sender, receiver) = sync_channel(waiting_max);
        let dropped = Dropped::default();
        let lost = dropped.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            write_all(&receiver, target, &lost);
        })?;
        Ok(Self { sender, dropped })
    }

    pub(super) fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// Waits until what has been logged so far is written, or for the timeout.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let (done, is_done) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(unsent)) = self.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = unsent;
            std::thread::sleep(FLUSH_INTERVAL);
        }
        // A reader that takes no lines gets no more time than this.
        let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(receiver: &Receiver<Message>, mut target: impl Write, lost: &Dropped) {
    let mut lines = Vec::new();
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => lines.push(line),
                Message::Flush(done) => {
                    write(&mut lines, &mut target, lost);
                    // Whoever asked may have given up.
                    let _ = done.try_send(());
                }
            }
            next = match lines.len() < LINES_TOGETHER_MAX {
                true => receiver.try_recv().ok(),
                false => None,
            };
        }
        write(&mut lines, &mut target, lost);
        // Where there is one line there are often more, and who sends them need not wake
        // this thread for each.
        std::thread::sleep(GATHER);
    }
}

fn write(lines: &mut Vec<Vec<u8>>, target: &mut impl Write, lost: &Dropped) {
    if target.write_all(&lines.concat()).and_then(|()| target.flush()).is_err() {
        lines.iter().for_each(|_| lost.add());
    }
    lines.clear();
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LogWriter {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() > limit("call_log_line", LINE_BYTES_MAX)
            || self.sender.try_send(Message::Line(line.to_vec())).is_err()
        {
            self.dropped.add();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Bytes that were written, behind a gate that a test may hold.
    #[derive(Clone, Default)]
    struct Gated(Arc<Mutex<Vec<u8>>>);

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const BOUND: Duration = Duration::from_secs(20);

    /// OUT-06: a slow reader.
    #[test]
    fn a_reader_that_stalls_loses_lines_and_holds_nobody() {
        let target = Gated::default();
        let writer = LogWriter::start(target.clone()).unwrap();
        let stalled = target.0.lock().unwrap();
        let sent = 2 * LINES_WAITING_MAX;
        for _ in 0..sent {
            (&writer).write_all(b"line\n").unwrap();
        }
        let dropped = usize::try_from(writer.dropped().count()).unwrap();
        assert!(dropped >= sent - LINES_WAITING_MAX - 1, "{dropped}");
        drop(stalled);
        writer.flush(BOUND);
        let written = target.0.lock().unwrap().len() / b"line\n".len();
        assert_eq!(written + dropped, sent);
    }

    /// OUT-06: a full disk.
    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let writer = LogWriter::start(Full).unwrap();
        for _ in 0..3 {
            (&writer).write_all(b"line\n").unwrap();
        }
        writer.flush(BOUND);
        assert_eq!(writer.dropped().count(), 3);
    }

    #[test]
    fn a_line_beyond_its_limit_is_dropped_whole() {
        let target = Gated::default();
        let writer = LogWriter::start(target.clone()).unwrap();
        (&writer).write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).unwrap();
        writer.flush(BOUND);
        assert_eq!((writer.dropped().count(), target.0.lock().unwrap().len()), (1, 0));
    }
}
