//! A listener that answers nobody any more, for tests of what is done then.

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;

/// Its queue has room for one connection, which is in it.
pub(crate) struct Silent {
    pub(crate) port: u16,
    _sockets: [TcpStream; 2],
}

impl Silent {
    pub(crate) async fn new() -> Silent {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let queued = TcpStream::connect(address).await.unwrap();
        // Readable is what a listener is with a connection in its queue.
        socket.set_nonblocking(true).unwrap();
        let listener = TcpStream::from_std(socket.into()).unwrap();
        listener.readable().await.unwrap();
        Silent {
            port: address.port(),
            _sockets: [listener, queued],
        }
    }
}
