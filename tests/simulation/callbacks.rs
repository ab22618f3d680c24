//! Calls to a backend whose thread is behind.

use fantail::callback::{Ask, Call, Caller, OUTCOMES, Service, Setup};
use fantail::config::limits::CALLBACKS_QUEUED_MAX;
use fantail::config::{CallbackKind, CallbackOption, Config};
use fantail::message::{ClientId, NodeId, SessionId, TransportKind, WorkerId};
use serde_json::json;

use crate::command_client::CommandClient;
use crate::world::World;

/// A call of a client that is gone.
fn call() -> Box<Call> {
    let session = SessionId { index: 0, generation: 7 };
    Box::new(Call {
        client: ClientId { node: NodeId::new(1), worker: WorkerId(0), session },
        serial: 0,
        transport: TransportKind::CommandsTcp,
        user: None,
        meta: None,
        address: None,
        is_protobuf: false,
        headers: None,
        ask: Ask::Refresh,
    })
}

/// A world that asks a backend for procedures, and the service whose thread does not run.
fn world() -> (World, Caller, Service) {
    let mut config = Config::default();
    let endpoint = CallbackOption::named("endpoint").expect("an option");
    let rpc = config.callbacks.of_mut(CallbackKind::Rpc);
    endpoint.parse(&["http://127.0.0.1:9/".to_owned()], rpc).expect("a URL");
    let setup = Setup::new(&config.callbacks, &[]).expect("it needs no file");
    let (service, caller, _) =
        Service::new(setup, NodeId::new(1), 1, 1 << 30).expect("it opens descriptors");
    (World::asking(config, caller.clone()), caller, service)
}

#[test]
fn calls_that_the_thread_has_not_taken_are_limited_and_the_client_is_to_try_again() {
    let (mut world, caller, _service) = world();
    let mut clients: Vec<_> = (0..3).map(|_| CommandClient::new(&mut world)).collect();
    for _ in 1..CALLBACKS_QUEUED_MAX {
        caller.call(call()).expect("there is room");
    }
    let rejected = OUTCOMES.iter().position(|outcome| *outcome == "rejected").expect("an outcome");
    let count = |world: &World| {
        world.counters[0].callbacks.at(CallbackKind::Rpc as usize, rejected).value()
    };
    // The last one that has a place waits for its answer.
    clients[0].send(&world, &[json!({"id": 2, "rpc": {"method": "a"}})]);
    for _ in 0..10 {
        world.turn_all();
    }
    assert!(clients[0].lines(&world).is_empty());
    assert_eq!(count(&world), 0);
    assert!(caller.call(call()).is_err(), "it has taken the last place");
    // Further ones fail at once, and nothing else of their clients does.
    for (before, client) in clients[1..].iter_mut().enumerate() {
        let reply = client.ask(&mut world, &json!({"id": 2, "rpc": {"method": "a"}}));
        let error = json!({"code": 100, "message": "internal server error", "temporary": true});
        assert_eq!(reply, json!({"id": 2, "error": error}));
        assert_eq!(count(&world), before as u64 + 1);
        let reply = client.ask(&mut world, &json!({"id": 3, "ping": {}}));
        assert_eq!(reply, json!({"id": 3, "ping": {}}));
    }
    assert!(clients[0].lines(&world).is_empty());
}
