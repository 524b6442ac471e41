//! A process that says anything whatever, and the host that it says it to. For the fuzz
//! target and the tests that are such a process; no host runs any of this.
//!
//! What listens is what listens in a host. There is no process, and so nothing that could
//! be killed: that it would be is what is told.

use super::super::incoming::{Incoming, Written};
use super::super::message::{
    Ask, Begin, HEAD_BYTES, Head, SMALL_BYTES_MAX, START_BYTES_MAX, Start, carried, invalid, read,
};
use super::{Messages, Process, Shared, Taking};
use crate::call::{Deadline, Event, Function, Input, Origin, Request};
use crate::limits::Limits;
use crate::sandbox::Calling;
use futures_util::FutureExt;
use rustix::net::Shutdown;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What its version may hold.
const MEMORY_BYTES_MAX: u64 = 1 << 20;

/// Inputs of each request.
const INPUTS: usize = 2;

/// Turns in which whatever is left goes away.
const TURNS_MAX: usize = 1000;

/// What a host made of a process.
#[derive(Debug)]
pub struct Heard {
    /// What would have been the end of it; nothing, where all made sense.
    pub wrong: Option<String>,
    /// Whether it has said that it takes calls.
    pub is_ready: bool,
    /// Outputs, and inputs that failed alone, which reached callers.
    pub events: usize,
    /// Verdicts that reached callers, for each call: one, whatever was said.
    pub verdicts: Vec<usize>,
    /// Most bytes that its outputs were charged with at once.
    pub charged_bytes_peak: u64,
    /// What is still charged when all is over: nothing.
    pub charged_bytes_left: u64,
    /// What the host has said, as far as it made sense.
    pub asked: io::Result<usize>,
}

/// Lets a host hear these bytes from a process that then says no more. It has called each
/// function, in this order: `predict`, `generate`, `stream`, whose callers read; and
/// `generate`, whose caller does not.
pub fn hear_anything(bytes: &[u8]) -> io::Result<Heard> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(hear_to_the_end(bytes))
}

async fn hear_to_the_end(bytes: &[u8]) -> io::Result<Heard> {
    let (here, there) = UnixStream::pair()?;
    let limits =
        Limits { memory_bytes_max: MEMORY_BYTES_MAX, outputs_buffered_max: 2, ..Limits::default() };
    let (shared, inbox) = Shared::of(here.into_std()?, "u/a/m".to_owned(), limits, None, 0)?;
    let (ready, mut is_ready) = oneshot::channel();
    let mut incoming =
        Incoming { shared: shared.clone(), ready: Some(ready), written: Written::No };
    let process = Process { shared };
    let call = |function| {
        let (never, origin) = (CancellationToken::new(), Origin::from("caller"));
        let deadline = Deadline::after(Duration::from_secs(3600));
        process.call(&never, function, origin, deadline, ())
    };
    let callers = Function::ALL.map(|function| tokio::spawn(read_all(call(function))));
    let unread = call(Function::Generate);

    let (from_host, mut to_host) = there.into_split();
    let asked = tokio::spawn(asked(from_host));
    let saying = async {
        // The host may stop to listen before it has all.
        if to_host.write_all(bytes).await.is_ok() {
            let _ = to_host.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let outbox = process.shared.outbox.clone();
    let wrong = tokio::select! {
        biased;
        heard = incoming.listen(inbox) => heard.err(),
        written = outbox.run() => written.err(),
        () = saying => None,
    };

    process.shared.end("it has ended");
    drop(unread);
    let (mut events, mut verdicts) = (0, Vec::new());
    for caller in callers {
        let (more, ends) = caller.await?;
        events += more;
        verdicts.push(ends);
    }
    let account = &process.shared.account;
    // Whoever looks after calls throws away what nobody has read.
    for _ in 0..TURNS_MAX {
        process.shared.sweep_once();
        if account.bytes() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    rustix::net::shutdown(outbox.socket(), Shutdown::Write)?;
    Ok(Heard {
        wrong: wrong.map(|error| error.to_string()),
        is_ready: matches!(is_ready.try_recv(), Ok(Ok(_))),
        events,
        verdicts,
        charged_bytes_peak: account.peak_of(crate::call::Holder::Message),
        charged_bytes_left: account.bytes(),
        asked: asked.await?,
    })
}

/// A caller who reads all that there is, and counts events and verdicts.
async fn read_all(
    (messages, mut calling, mut taking): (Messages, Calling, Taking),
) -> (usize, usize) {
    let input = Input { id: String::new(), parts: vec![] };
    let inputs = vec![input; INPUTS];
    let request = Request { method: String::new(), inputs, params: String::new() };
    // A call that is over says so below.
    let _ = messages.send(request).await;
    let (mut events, mut verdicts) = (0, 0);
    while verdicts == 0 {
        match calling.next().await {
            Some(event @ (Event::Output(_) | Event::InputFailed(_))) => {
                events += 1;
                taking.one(&event, calling.held_bytes());
            }
            Some(Event::End(_)) => verdicts += 1,
            None => break,
        }
    }
    // Nothing comes after it.
    while let Some(Some(_)) = calling.next().now_or_never() {
        verdicts += 1;
    }
    (events, verdicts)
}

/// What the host says, read as a process does; as many frames as there were.
async fn asked(mut from_host: OwnedReadHalf) -> io::Result<usize> {
    let mut bytes = Vec::new();
    from_host.read_to_end(&mut bytes).await?;
    heed_anything(&bytes)
}

/// Reads bytes as what a host says, as a process does: as many whole frames as there are.
pub fn heed_anything(bytes: &[u8]) -> io::Result<usize> {
    let (mut rest, mut frames) = (bytes, 0);
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let head = Head::<Ask>::parse(head)?;
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        // The rest would come later.
        let Some((body, after)) = after.split_at_checked(length) else { break };
        match head.kind {
            Ask::Start if length as u64 > START_BYTES_MAX => return Err(invalid("it is too long")),
            Ask::Start => drop(read::<Start>(body, START_BYTES_MAX.saturating_mul(8))?),
            Ask::Call => drop(read::<Begin>(body, SMALL_BYTES_MAX)?),
            Ask::Message => {
                drop(carried::<Request>(body.into(), u64::from(head.length).saturating_mul(32))?)
            }
            Ask::NoMore | Ask::Cancel | Ask::Taken | Ask::Released => {}
        }
        (rest, frames) = (after, frames + 1);
    }
    Ok(frames)
}

#[cfg(test)]
#[path = "anything_tests.rs"]
mod tests;
