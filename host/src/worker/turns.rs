//! Turns that a guest and what brings its outputs have on the thread where its message was
//! read: to wake another one would take longer than what they do.
//!
//! Owns that these turns are short, and that there are more of them only as long as one of
//! the two has something to do for the other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

/// How long a pair has turns. Each may take longer.
const TURNS_MAX: Duration = Duration::from_micros(500);

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives turns to one pair after the other.
#[derive(Debug, Default)]
pub(super) struct Turns {
    guest: Arc<Woken>,
    answer: Arc<Woken>,
}

/// Which of a pair are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) guest: bool,
    pub(super) answer: bool,
}

impl Turns {
    /// Gives turns to a guest and to what brings its outputs, until these have been brought,
    /// neither of the two can go on, or they have had enough. Whoever has them next has to
    /// poll both that are not over.
    pub(super) fn take(&self, guest: &mut Work, answer: &mut Work) -> Over {
        let mut over = Over { guest: false, answer: false };
        let (mut guest_goes_on, mut answer_goes_on) = (true, true);
        let began = Instant::now();
        while !over.answer && (guest_goes_on || answer_goes_on) && began.elapsed() < TURNS_MAX {
            if guest_goes_on && !over.guest {
                over.guest = self.guest.poll(guest).is_ready();
                // It goes on here as there is room for its outputs, and for nothing else.
                self.guest.take();
            }
            over.answer = self.answer.poll(answer).is_ready();
            guest_goes_on = self.guest.take();
            answer_goes_on = self.answer.take();
        }
        over
    }
}

/// Whether somebody was woken, for whoever polls without a task.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Woken {
    /// Polls, and notes whether to do so again.
    fn poll(self: &Arc<Self>, work: &mut Work) -> Poll<()> {
        self.take();
        work.as_mut().poll(&mut Context::from_waker(&self.clone().into()))
    }

    /// Whether to; asked once.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn};
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::mpsc;

    const OVER: Over = Over { guest: true, answer: true };

    /// A guest that has so many outputs, of which one at a time waits to be brought, and
    /// what brings them. The last tells how many have been.
    fn pair(outputs: usize) -> (Work, Work, Arc<AtomicUsize>) {
        let (sender, mut receiver) = mpsc::channel(1);
        let brought = Arc::<AtomicUsize>::default();
        let guest = async move {
            for output in 0..outputs {
                sender.send(output).await.unwrap();
            }
        };
        let bringing = brought.clone();
        let answer = async move {
            while let Some(output) = receiver.recv().await {
                assert_eq!(bringing.fetch_add(1, Ordering::Relaxed), output);
            }
        };
        (Box::pin(guest), Box::pin(answer), brought)
    }

    #[test]
    fn a_guest_goes_on_as_there_is_room_for_its_outputs() {
        // A turn is rarely interrupted, and one that is takes as long as a pair has.
        let brought_in_turns = (0..100).any(|_| {
            let (mut guest, mut answer, brought) = pair(5);
            let over = Turns::default().take(&mut guest, &mut answer);
            over == OVER && brought.load(Ordering::Relaxed) == 5
        });
        assert!(brought_in_turns);
    }

    #[test]
    fn turns_have_an_end_and_nothing_is_lost_then() {
        const OUTPUTS: usize = 1 << 20;
        let (mut guest, mut answer, brought) = pair(OUTPUTS);
        let over = Turns::default().take(&mut guest, &mut answer);
        assert_eq!(over, Over { guest: false, answer: false });
        let so_far = brought.load(Ordering::Relaxed);
        assert!((1..OUTPUTS).contains(&so_far), "{so_far}");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.unwrap().block_on(async {
            let (guest, answer) = (tokio::spawn(guest), tokio::spawn(answer));
            guest.await.unwrap();
            answer.await.unwrap();
        });
        assert_eq!(brought.load(Ordering::Relaxed), OUTPUTS);
    }

    /// It is polled by others until that comes.
    #[test]
    fn a_guest_that_waits_for_something_else_has_one_turn() {
        let turns = Turns::default();
        let polled = Arc::<AtomicUsize>::default();
        let polls = polled.clone();
        let mut guest: Work = Box::pin(poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let mut answer: Work = Box::pin(pending());
        let over = turns.take(&mut guest, &mut answer);
        assert_eq!(over, Over { guest: false, answer: false });
        assert_eq!(polled.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn outputs_are_brought_though_their_guest_goes_on() {
        let mut guest: Work = Box::pin(pending());
        let mut turns_left = 3;
        let mut answer: Work = Box::pin(poll_fn(move |context| {
            context.waker().wake_by_ref();
            turns_left -= 1;
            if turns_left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let brought = (0..100).any(|_| Turns::default().take(&mut guest, &mut answer).answer);
        assert!(brought);
    }
}
