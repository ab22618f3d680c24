//! The commands of clients, in Protobuf.

use prost::Message;
use prost::bytes::Bytes;

use super::{schema, tags_filter};
use crate::message::Position;
use crate::protocol::command::{
    Command, Connect, Data, Emulation, InvalidCommand, InvalidEmulation, Method,
    SubscribeParameters, wish,
};

/// Decodes one command. Of several methods, the first one in the order of the schema counts.
pub fn decode_command(bytes: &[u8]) -> Result<Command<'static>, InvalidCommand> {
    let command = schema::Command::decode(bytes).map_err(|_| InvalidCommand)?;
    Ok(Command { id: command.id, method: method(command) })
}

/// Decodes a request that carries commands for a session.
pub fn decode_emulation(bytes: &[u8]) -> Result<Emulation<'static>, InvalidEmulation> {
    let schema::EmulationRequest { node, session, data } =
        schema::EmulationRequest::decode(bytes).map_err(|_| InvalidEmulation)?;
    let commands = Some(Vec::from(data).into());
    Ok(Emulation { session: session.into(), node: node.into(), commands })
}

fn method(command: schema::Command) -> Method<'static> {
    if let Some(connect) = command.connect {
        return Method::Connect(connect_of(connect));
    }
    if let Some(subscribe) = command.subscribe {
        return subscribe_of(subscribe).method();
    }
    if let Some(schema::OfChannel { channel }) = command.unsubscribe {
        return Method::Unsubscribe(channel.into());
    }
    if let Some(schema::PublishRequest { channel, data }) = command.publish {
        let data = data_of(data);
        return data.map_or(Method::Malformed, |data| Method::Publish(channel.into(), data));
    }
    if let Some(schema::OfChannel { channel }) = command.presence {
        return Method::Presence(channel.into());
    }
    if let Some(schema::OfChannel { channel }) = command.presence_stats {
        return Method::PresenceStats(channel.into());
    }
    if let Some(history) = command.history {
        let schema::HistoryRequest { channel, limit, since, reverse } = history;
        let since = since.map(|since| Position::since(since.offset, &since.epoch));
        return Method::history(channel.into(), limit.into(), since, reverse);
    }
    if command.ping.is_some() {
        return Method::Ping;
    }
    if let Some(schema::Data { data }) = command.send {
        return Method::Send(data_of(data));
    }
    if let Some(schema::RpcRequest { data, method }) = command.rpc {
        return Method::Rpc(method.into(), data_of(data));
    }
    if let Some(schema::RefreshRequest { token }) = command.refresh {
        return Method::Refresh(token.into());
    }
    if let Some(schema::SubRefreshRequest { channel, token }) = command.sub_refresh {
        return Method::RefreshSubscription(channel.into(), token.into());
    }
    if command.id == 0 { Method::Pong } else { Method::Unknown }
}

fn connect_of(connect: schema::ConnectRequest) -> Connect<'static> {
    let schema::ConnectRequest { token, data, subs, name, version } = connect;
    let subs = subs.into_iter().filter_map(|schema::ConnectRequestSub { channel, wish: of }| {
        let schema::SubscriptionWish { recover, epoch, offset, delta } = of?;
        Some((channel.into(), wish(recover, offset, &epoch, &delta)?))
    });
    Connect {
        token: token.into(),
        data: data_of(data),
        name: name.into(),
        version: version.into(),
        channels: Vec::new(),
        subs: subs.collect(),
    }
}

fn subscribe_of(subscribe: schema::SubscribeRequest) -> SubscribeParameters<'static> {
    SubscribeParameters {
        channel: subscribe.channel.into(),
        token: subscribe.token.into(),
        recover: subscribe.recover,
        offset: subscribe.offset,
        epoch: subscribe.epoch.into(),
        flag: subscribe.flag,
        kind: subscribe.kind.into(),
        filter: subscribe.tf.map(tags_filter::decode),
        delta: subscribe.delta.into(),
        data: data_of(subscribe.data),
    }
}

/// In Protobuf, empty and absent are the same.
fn data_of(data: Bytes) -> Option<Data<'static>> {
    (!data.is_empty()).then_some(Data::Bytes(data))
}
