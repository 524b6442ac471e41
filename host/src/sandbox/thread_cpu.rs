//! CPU time of the calling thread.
//!
//! Owns that asking for it costs little: the kernel is asked at most once in a while, and
//! between two answers the thread is taken to have run all the time, unless it has said
//! that it has waited.

use crate::clock::cpu_time;
use rustix::time::ClockId;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// CPU time that the calling thread has taken.
pub(super) fn thread_cpu() -> Duration {
    CLOCK.with_borrow_mut(|clock| clock.read(Instant::now()))
}

/// The same to within [`UNREAD_MAX`], for what is asked for often: the kernel has to be
/// asked for it, which takes longer than much of what is measured.
pub(super) fn thread_cpu_about() -> Duration {
    CLOCK.with_borrow_mut(|clock| clock.about(Instant::now()))
}

/// The calling thread has waited for something, which is no CPU time.
pub(crate) fn thread_has_waited() {
    CLOCK.with_borrow_mut(ThreadClock::waited);
}

thread_local! {
    static CLOCK: RefCell<ThreadClock> = const { RefCell::new(ThreadClock::new(read_cpu)) };
}

fn read_cpu() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

/// How long a thread is taken to have run all the time since its clock was read. It may
/// have been interrupted: so much is what one that ran meanwhile may have had of it.
const UNREAD_MAX: Duration = Duration::from_micros(100);

/// The CPU clock of a thread. What it says never decreases.
#[derive(Debug)]
struct ThreadClock {
    kernel: fn() -> Duration,
    /// When the kernel was asked last, if the thread has not waited since.
    read_at: Option<Instant>,
    /// What it said.
    read: Duration,
    /// What was last said here.
    said: Duration,
}

impl ThreadClock {
    const fn new(kernel: fn() -> Duration) -> Self {
        Self { kernel, read_at: None, read: Duration::ZERO, said: Duration::ZERO }
    }

    fn read(&mut self, now: Instant) -> Duration {
        self.read = (self.kernel)();
        self.read_at = Some(now);
        self.say(self.read)
    }

    fn about(&mut self, now: Instant) -> Duration {
        match self.read_at.map(|at| now.saturating_duration_since(at)) {
            Some(since) if since < UNREAD_MAX => self.say(self.read.saturating_add(since)),
            Some(_) | None => self.read(now),
        }
    }

    fn waited(&mut self) {
        self.read_at = None;
    }

    fn say(&mut self, time: Duration) -> Duration {
        self.said = self.said.max(time);
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static KERNEL: RefCell<Duration> = const { RefCell::new(Duration::ZERO) };
    }

    fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn runs(count: u64) {
        KERNEL.with_borrow_mut(|time| *time += us(count));
    }

    fn clock() -> (ThreadClock, Instant) {
        KERNEL.set(Duration::ZERO);
        let (mut clock, now) =
            (ThreadClock::new(|| KERNEL.with_borrow(|time| *time)), Instant::now());
        assert_eq!(clock.read(now), Duration::ZERO);
        (clock, now)
    }

    #[test]
    fn a_thread_that_runs_is_believed_for_a_while_and_then_looked_at() {
        let (mut clock, now) = clock();
        runs(30);
        assert_eq!(clock.about(now + us(40)), us(40), "10 were another thread's");
        runs(70);
        assert_eq!(clock.about(now + us(110)), us(100));
        runs(5);
        assert_eq!(clock.about(now + us(115)), us(105));
    }

    #[test]
    fn what_a_thread_has_waited_is_not_counted() {
        let (mut clock, now) = clock();
        clock.waited();
        runs(3);
        assert_eq!(clock.about(now + us(90)), us(3));
    }

    #[test]
    fn it_never_goes_back() {
        let (mut clock, now) = clock();
        assert_eq!(clock.about(now + us(99)), us(99));
        runs(10);
        assert_eq!(clock.about(now + us(101)), us(99), "it had run for 10 only");
        runs(100);
        assert_eq!(clock.about(now + us(300)), us(110));
    }
}
