//! Drives a conversation without a server and without a hub.

use fantail::config::Config;
use fantail::message::{ClientId, NodeId, Reply, Request, SessionId, SessionRequest, WorkerId};
use fantail::transport::{Answers, Context, Flow, Inflater, Output, Transport, TransportSettings};

/// What a conversation writes, and what it asks the worker for, when the bytes of its peer arrive in these pieces. The
/// first connection of the command protocol is accepted; no other request gets a reply.
pub fn drive<'p, T: Transport>(
    mut conversation: T,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> (Vec<u8>, Vec<String>) {
    let settings = TransportSettings::new(&Config::default());
    let (mut out, mut outputs) = (Vec::new(), Vec::new());
    let (mut answers, mut inflater) = (Answers::default(), Inflater::default());
    let session = SessionId { index: 1, generation: 2 };
    for piece in pieces {
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        let kept = (&mut answers, &mut inflater);
        let mut context = Context::new(client, &settings, kept, &mut out, &mut outputs);
        let mut flow = conversation.receive(&mut piece.to_vec(), &mut context);
        if let Some(Output::Request(SessionRequest {
            origin: Some(origin),
            request: Request::Connect(_),
            ..
        })) = context.outputs.last()
        {
            flow = conversation.reply(*origin, &Reply::Connected(Box::default()), &mut context);
        }
        if !matches!(flow, Flow::Receive) {
            break;
        }
    }
    let outputs = outputs.iter().map(|output| format!("{output:?}")).collect();
    (out, outputs)
}
