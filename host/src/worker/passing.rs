//! How a replica's process gets what it starts from: one body, and open files.
//!
//! The host sends before it waits for anything, and the process reads before it has
//! any thread, so both block.

use super::message::{Ask, Begins, HEAD_BYTES, Head, START_BYTES_MAX, Start, frame, invalid, read};
use crate::package::GraphFile;
use crate::sandbox::{Beginning, Compiled};
use crate::sealed::Sealed;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Files that go with one byte; the kernel takes 253.
const FILES_AT_ONCE: usize = 64;

/// Sends what a replica starts from.
pub(super) fn send(
    mut socket: &UnixStream,
    start: &Start,
    compiled: &Compiled,
    graphs: &[GraphFile],
) -> io::Result<()> {
    socket.write_all(&frame(Ask::Start, 0, 0, start)?)?;
    send_files(socket, &[compiled.sealed().as_fd()])?;
    if let Beginning::Write(component) = compiled.beginning() {
        send_files(socket, &[component.as_fd()])?;
    }
    for graphs in graphs.chunks(FILES_AT_ONCE) {
        let files: Vec<_> =
            graphs.iter().map(|graph| graph.content.file()).collect::<io::Result<_>>()?;
        send_files(socket, &files.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Receives it: what is said, the machine code with what its sandboxes begin with, and the
/// graphs.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(Start, Compiled, Vec<File>)> {
    let mut head = [0; HEAD_BYTES];
    let mut from = socket;
    from.read_exact(&mut head)?;
    let head = Head::<Ask>::parse(&head)?;
    if head.kind != Ask::Start || u64::from(head.length) > START_BYTES_MAX {
        return Err(invalid("the first frame starts nothing"));
    }
    let mut body = vec![0; usize::try_from(head.length).map_err(io::Error::other)?];
    from.read_exact(&mut body)?;
    let start: Start = read(&body, START_BYTES_MAX.saturating_mul(8))?;
    let file = || {
        let file = receive_files(socket, 1)?.pop().ok_or_else(|| invalid("there is no code"))?;
        Sealed::trusted(file)
    };
    let code = Compiled::trusted(file()?);
    let compiled = code.beginning_with(match &start.begins {
        Begins::Load => Beginning::Load,
        Begins::Write => Beginning::Write(file()?),
        Begins::Copy(copied) => Beginning::Copy(copied.clone()),
    });
    let mut graphs = Vec::with_capacity(start.graphs.len());
    while graphs.len() < start.graphs.len() {
        graphs
            .extend(receive_files(socket, (start.graphs.len() - graphs.len()).min(FILES_AT_ONCE))?);
    }
    Ok((start, compiled, graphs))
}

fn send_files(socket: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files at once"));
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_files(socket: &UnixStream, count: usize) -> io::Result<Vec<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    // Nobody inherits these: the process executes nothing.
    let flags = RecvFlags::empty();
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut files: Vec<File> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors.map(|descriptor: OwnedFd| File::from(descriptor)));
        }
    }
    match received.bytes == 1 && files.len() == count {
        true => Ok(files),
        false => Err(invalid("files are missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::package::{Content, Sheet};
    use std::io::Read;

    #[test]
    fn files_arrive_in_their_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let graphs: Vec<GraphFile> = (0..200_u8)
            .map(|number| GraphFile {
                name: number.to_string(),
                folder: String::new(),
                content: Content::Bytes(vec![number].into()),
            })
            .collect();
        let start = Start {
            version: 1,
            sheet: Sheet::of_tests(Limits::default()),
            fuel_per_cpu_second: 1,
            begins: Begins::Write,
            graphs: graphs.iter().map(|graph| (graph.name.clone(), String::new())).collect(),
            assets: vec![],
            assets_path: "/model".into(),
            devices: vec![],
            no_kernels: None,
            lifted: String::new(),
        };
        let sealed = |bytes: &[u8]| Sealed::of(bytes).unwrap();
        let compiled = Compiled::trusted(sealed(b"code"))
            .beginning_with(Beginning::Write(sealed(b"component")));
        let sending = std::thread::spawn(move || {
            send(&here, &start, &compiled, &graphs).unwrap();
        });
        let (start, code, graphs) = receive(&there).unwrap();
        sending.join().unwrap();
        assert_eq!(start.graphs.len(), 200);
        assert_eq!(code.sealed().to_vec().unwrap(), b"code");
        let Beginning::Write(component) = code.beginning() else { panic!("{code:?}") };
        assert_eq!(component.to_vec().unwrap(), b"component");
        for (number, graph) in graphs.iter().enumerate() {
            let content = Sealed::trusted(graph.try_clone().unwrap()).unwrap();
            assert_eq!(content.to_vec().unwrap(), [number as u8]);
        }
        drop(there.take(0));
    }
}
