//! russh's callbacks, turned into calls. Nothing is decided here, and nothing awaited: a callback holds up the whole
//! connection.

use crate::connection::{Connection, Login};
use crate::keyring::Admission;
use crate::refusal;
use russh::keys::PublicKey;
use russh::server::{
    self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Error, Pty};
use std::collections::HashMap;
use std::sync::Arc;
use tracing::debug;
use tunnel::ident::Peer;

/// Session channels on which nothing was requested yet; further ones are refused.
const IDLE_SESSIONS: usize = 16;

/// The state of one connection that russh's callbacks share.
pub(crate) struct Handler {
    login: Option<Login>,
    admission: Option<Admission>,
    connection: Option<Arc<Connection>>,
    /// Session channels that wait for their request.
    sessions: HashMap<ChannelId, Idle>,
}

/// A session channel on which nothing was requested yet.
struct Idle {
    channel: Channel<Msg>,
    terminal: bool,
}

impl Handler {
    pub(crate) fn new(login: Login) -> Handler {
        Handler {
            login: Some(login),
            admission: None,
            connection: None,
            sessions: HashMap::new(),
        }
    }

    fn knows(&self, key: &PublicKey) -> bool {
        let known = self
            .login
            .as_ref()
            .is_some_and(|login| login.server.keyring().knows(key));
        if !known {
            debug!(fingerprint = %key.fingerprint(Default::default()), "an unknown key");
        }
        known
    }

    /// After authentication; russh has no callbacks of channels before.
    fn connection(&self) -> Result<&Arc<Connection>, Error> {
        self.connection.as_ref().ok_or(Error::Inconsistent)
    }
}

impl server::Handler for Handler {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(if self.knows(offer.public_key) {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        self.admission = self
            .login
            .as_ref()
            .and_then(|login| login.server.keyring().admit(key.public_key));
        Ok(match self.admission {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        let (login, admission) = self
            .login
            .take()
            .zip(self.admission.take())
            .ok_or(Error::Inconsistent)?;
        let peer = Peer::parse(session.remote_sshid());
        self.connection = Some(login.finish(admission, peer, session.handle()));
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.connection()?
            .open(host, port, originator, channel, reply);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if self.sessions.len() < IDLE_SESSIONS {
            let (id, terminal) = (channel.id(), false);
            self.sessions.insert(id, Idle { channel, terminal });
            // Never waits: the reply goes into an unbounded queue.
            reply.accept().await;
        }
        Ok(())
    }

    /// Without a request there is nobody whom a session's data is for, and russh would wait for somebody to take it.
    async fn data(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        match self.sessions.remove(&channel) {
            Some(_) => session.close(channel),
            None => Ok(()),
        }
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.data(channel, data, session).await
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.sessions.remove(&channel);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let idle = self.sessions.remove(&id);
        let connection = self.connection()?;
        if idle.is_some_and(|idle| connection.subsystem(name, idle.channel)) {
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        match self.sessions.remove(&id) {
            Some(idle) => refusal::shell(session, id, idle.terminal),
            None => session.channel_failure(id),
        }
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        match self.sessions.remove(&id) {
            Some(idle) => refusal::exec(session, id, idle.terminal),
            None => session.channel_failure(id),
        }
    }

    /// Granted, so that the client shows the sentence that follows and nothing else.
    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        if let Some(idle) = self.sessions.get_mut(&id) {
            idle.terminal = true;
        }
        session.channel_success(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        let claimed = self.connection()?.claim(address, *port);
        *port = claimed.map_or(*port, u32::from);
        Ok(claimed.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        Ok(self.connection()?.cancel(address, port))
    }
}
