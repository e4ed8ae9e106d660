//! One line of text over a Unix socket, with a file descriptor at its side (SCM_RIGHTS, unix(7)).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Longest line, in bytes.
const LONGEST: usize = crate::authorized_keys::LONGEST_LINE;

/// Sends `line`, and `pass` with its first byte.
pub(super) async fn send(
    stream: &UnixStream,
    line: &str,
    pass: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = format!("{line}\n").into_bytes();
    let mut rest = bytes.as_slice();
    let mut pass = pass.into_iter().collect::<Vec<_>>();
    while !rest.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !pass.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(&pass));
                }
                let flags = SendFlags::NOSIGNAL;
                Ok(sendmsg(stream, &[IoSlice::new(rest)], &mut control, flags)?)
            })
            .await?;
        pass.clear();
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Receives a line, and the descriptor that came with it.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<(String, Option<OwnedFd>)> {
    let mut line = vec![];
    let mut passed = None;
    while line.last() != Some(&b'\n') {
        let mut buffer = [0; 1024];
        let received = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut into = [IoSliceMut::new(&mut buffer)];
                let received = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                        passed = descriptors.last().or(passed.take());
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        line.extend_from_slice(buffer.get(..received).unwrap_or_default());
        if received == 0 || line.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?;
    let line = text.trim_end();
    if line.contains('\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((line.to_owned(), passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_line_and_a_descriptor_arrive() {
        let (near, far) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/").unwrap();
        let line = "x".repeat(LONGEST - 1);
        send(&near, &line, Some(file.as_fd())).await.unwrap();
        let (received, passed) = receive(&far).await.unwrap();
        assert_eq!(received, line);
        assert!(
            std::fs::File::from(passed.unwrap())
                .metadata()
                .unwrap()
                .is_dir()
        );
    }

    #[tokio::test]
    async fn what_is_no_line_is_refused() {
        for bytes in [
            &b"cut"[..],
            b"\xff\n",
            b"two\nlines\n",
            &[b'x'; LONGEST + 1],
        ] {
            let (mut near, far) = UnixStream::pair().unwrap();
            let sending = async {
                near.write_all(bytes).await.unwrap();
                drop(near);
            };
            let (received, ()) = tokio::join!(receive(&far), sending);
            assert!(received.is_err());
        }
    }
}
