//! Event streams: how they begin, what their blocks are, and how they end.

use std::time::Duration;

use super::*;
use crate::config::limits::{EVENT_STREAM_RETRY_MS, EVENT_STREAM_RETRY_OVERLOADED_MS};
use crate::message::{Disconnect, NodeId};

/// The chunks of a stream; the last one is empty if it is the last chunk.
fn chunks(mut body: &str) -> Vec<&str> {
    let mut chunks = Vec::new();
    while !body.is_empty() {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let (chunk, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
        chunks.push(chunk);
        body = rest.strip_prefix("\r\n").unwrap();
    }
    chunks
}

/// The first block without its first line, which says a time that is not the same for all.
fn opening(block: &str) -> &str {
    let (retry, rest) = block.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
    assert!(EVENT_STREAM_RETRY_MS.contains(&retry.parse().unwrap()), "{retry}");
    rest
}

fn begins_at(id: &str) -> String {
    format!("id: {id}\nevent: position\ndata: {{}}\n\n")
}

fn begins_with_a_gap(id: &str) -> String {
    format!("id: {id}\nevent: gap\ndata: {{\"recovered\":false}}\n\n")
}

fn event(id: &str, data: &str) -> String {
    format!("id: {id}\ndata: {data}\n\n")
}

#[test]
fn an_event_stream_begins_with_its_position() {
    let mut talk = Talk::new();
    assert_eq!(talk.get("/events", ""), "await");
    assert_eq!(talk.asked(), ["1 lobby now"]);
    assert_eq!(talk.said(), "", "nothing is answered before the subscription is made");
    assert_eq!(talk.reply(1, &subscribed("lobby", 7, None)), "stream");
    let said = talk.said();
    for header in [
        "HTTP/1.1 200 OK\r\n",
        "\r\nContent-Type: text/event-stream\r\n",
        "\r\nTransfer-Encoding: chunked\r\n",
        "\r\nCache-Control: no-cache, no-transform\r\n",
        "\r\nX-Accel-Buffering: no\r\n",
        // With `close`, undici 6 takes a stream that is cut for whole.
        "\r\nConnection: keep-alive\r\n",
    ] {
        assert!(said.contains(header), "{said}");
    }
    assert!(!said.contains("Content-Length"), "{said}");
    let begun = chunks(body_of(&said));
    assert_eq!((begun.len(), opening(begun[0])), (1, &*begins_at(&format!("7:{E}"))));
    assert_eq!(talk.asked(), ["Deadline(25s)"]);
    talk.deliver(&[publication("lobby", 8, "a\nb"), publication("lobby", 9, "c")]);
    let both = [format!("id: 8:{E}\ndata: a\ndata: b\n\n"), format!("id: 9:{E}\ndata: c\n\n")];
    assert_eq!(chunks(&talk.said()), both);
}

/// RFC 9112 6.1: a client that may know no more than HTTP/1.0 knows no chunks. RFC 9112 9.6: one that says that its
/// connection ends needs none.
#[test]
fn a_stream_is_delimited_by_its_end_where_chunks_are_not_understood() {
    let old = "GET /events HTTP/1.0\r\n\r\n";
    let kept = "GET /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let last = "GET /events HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    for request in [old, kept, last] {
        let mut talk = Talk::new();
        talk.receive(request);
        talk.reply(1, &subscribed("lobby", 7, None));
        let said = talk.said();
        assert!(
            !said.contains("Transfer-Encoding") && said.contains("Connection: close"),
            "{said}"
        );
        assert_eq!(opening(body_of(&said)), begins_at(&format!("7:{E}")));
        talk.deliver(&[publication("lobby", 8, "x"), publication("lobby", 9, "y")]);
        let both = event(&format!("8:{E}"), "x") + &event(&format!("9:{E}"), "y");
        assert_eq!(talk.said(), both);
    }
}

#[test]
fn an_event_stream_goes_on_where_the_client_stood() {
    let query = format!("/events?channel=a&since=3:{E}");
    for (target, header, since) in [
        (query.as_str(), String::new(), "3"),
        ("/events?channel=a", format!("Last-Event-ID: 4:{E}\r\n"), "4"),
        (query.as_str(), format!("Last-Event-ID: 4:{E}\r\n"), "4"),
        (query.as_str(), "Last-Event-ID:\r\n".to_owned(), "3"),
    ] {
        let mut talk = Talk::new();
        talk.get(target, &header);
        assert_eq!(talk.asked(), [format!("1 a {since}:{E}")], "{target} {header}");
    }
    let mut talk = Talk::new();
    talk.get(&query.replace("since", "last_event_id"), "");
    talk.reply(
        1,
        &subscribed("a", 5, recovered(&[publication("a", 4, "x"), publication("a", 5, "y")])),
    );
    let said = talk.said();
    let begun = chunks(body_of(&said));
    assert_eq!(opening(begun[0]), begins_at(&format!("3:{E}")));
    assert_eq!(begun[1..], [event(&format!("4:{E}"), "x"), event(&format!("5:{E}"), "y")]);
}

#[test]
fn a_gap_is_sent_before_what_follows() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a", &format!("Last-Event-ID: 3:{E}\r\n"));
    talk.reply(1, &subscribed("a", 9, impossible()));
    let said = talk.said();
    // In one block with the place, which is of no use without it.
    assert_eq!(chunks(body_of(&said)).len(), 1);
    assert_eq!(opening(chunks(body_of(&said))[0]), begins_with_a_gap(&format!("9:{E}")));
}

/// WHATWG HTML 9.2.3: an error's status would end the stream for good.
#[test]
fn an_id_that_means_nothing_here_is_a_gap_and_what_is_kept_follows() {
    for id in [
        "5",
        "null",
        "1700000000:0",
        "b3f1c0de-2f1e-4d7c-9a55-0f6a5e1b2c3d",
        "\u{e9}\u{1F600}",
        "7:00000001_8:00000001",
    ] {
        let mut talk = Talk::new();
        assert_eq!(talk.get("/events?channel=a", &format!("Last-Event-ID: {id}\r\n")), "await");
        assert_eq!(talk.asked(), ["1 a 0:00000000"]);
        let kept = [publication("a", 8, "x"), publication("a", 9, "y")];
        let recovery =
            Recovery { is_complete: false, publications: kept[..].into(), has_more: false };
        assert_eq!(talk.reply(1, &subscribed("a", 9, Some(recovery))), "stream");
        let said = talk.said();
        let begun = chunks(body_of(&said));
        assert_eq!(opening(begun[0]), begins_with_a_gap(&format!("7:{E}")));
        assert_eq!(begun[1..], [event(&format!("8:{E}"), "x"), event(&format!("9:{E}"), "y")]);
    }
}

#[test]
fn a_channel_that_keeps_nothing_lost_nothing_where_it_stands_as_it_stood() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a", &format!("Last-Event-ID: 3:{E}\r\n"));
    talk.reply(1, &subscribed("a", 3, impossible()));
    assert_eq!(opening(chunks(body_of(&talk.said()))[0]), begins_at(&format!("3:{E}")));
}

#[test]
fn each_event_of_several_channels_says_where_the_client_stands_in_all() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a&channel=b&channel=a", "");
    assert_eq!(talk.asked(), ["1 a now", "2 b now"]);
    assert_eq!(talk.reply(1, &subscribed("a", 7, None)), "await");
    talk.deliver(&[publication("a", 8, "held")]);
    assert_eq!(talk.said(), "");
    assert_eq!(talk.reply(2, &subscribed("b", 0, None)), "stream");
    let said = talk.said();
    let begun = chunks(body_of(&said));
    assert_eq!(opening(begun[0]), begins_at(&format!("7:{E}_0:{E}")));
    assert_eq!(begun[1..], [event(&format!("8:{E}_0:{E}"), "held")]);
    talk.deliver(&[publication("b", 1, "one")]);
    assert_eq!(chunks(&talk.said()), [event(&format!("8:{E}_1:{E}"), "one")]);
    talk.deliver(&[publication("a", 9, "x"), publication("a", 10, "y")]);
    let both = [event(&format!("9:{E}_1:{E}"), "x"), event(&format!("10:{E}_1:{E}"), "y")];
    assert_eq!(chunks(&talk.said()), both);
}

#[test]
fn several_channels_are_delimited_by_the_end_too() {
    let mut talk = Talk::new();
    talk.receive("GET /events?channel=a&channel=b HTTP/1.0\r\n\r\n");
    talk.reply(1, &subscribed("a", 7, None));
    talk.reply(2, &subscribed("b", 0, None));
    assert_eq!(opening(body_of(&talk.said())), begins_at(&format!("7:{E}_0:{E}")));
    talk.deliver(&[publication("b", 1, "one")]);
    assert_eq!(talk.said(), event(&format!("7:{E}_1:{E}"), "one"));
}

#[test]
fn each_action_of_the_server_api_is_an_event() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a", "");
    talk.reply(1, &subscribed("a", 7, None));
    talk.said();
    let missed = recovered(&[publication("b", 1, "x")]);
    talk.of_stream(|stream, context| {
        stream.reply(Origin::Server, &subscribed("b", 1, missed), context)
    });
    let subscribed_to_b = "event: subscribe\ndata: {\"channel\":\"b\"}\n\n";
    assert_eq!(chunks(&talk.said()), [subscribed_to_b, "data: x\n\n"]);
    talk.deliver(&[publication("b", 2, "y")]);
    talk.deliver(&[publication("b", 3, "z"), publication("b", 4, "z")]);
    let without_ids = ["data: y\n\n", "data: z\n\n", "data: z\n\n"];
    assert_eq!(chunks(&talk.said()), without_ids, "they lead nowhere in channel a");
    talk.deliver(&[publication("a", 8, "x")]);
    assert_eq!(chunks(&talk.said()), [event(&format!("8:{E}"), "x")]);
}

/// go-sse 0.12 takes a stream that ends behind a comment for the end of all; Jersey and Spring make an event of it.
#[test]
fn a_heartbeat_is_a_retry_line_alone() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a", "");
    talk.reply(1, &subscribed("a", 7, None));
    talk.said();
    talk.of_stream(|stream, context| {
        assert_eq!(stream.expire(Duration::ZERO, false, context), Flow::Receive)
    });
    let said = talk.said();
    let line = chunks(&said);
    assert_eq!(line.len(), 1);
    assert_eq!(opening(line[0]), "", "a line, and nothing behind it");
}

#[test]
fn a_stream_has_a_longest_life_that_differs_from_client_to_client() {
    let longest = Duration::from_secs(1000);
    let mut talk = Talk::with(|config| config.stream_lifetime = longest);
    let client = |index| {
        let session = SessionId { index, generation: 3 };
        ClientId { node: NodeId::new(1), worker: WorkerId(0), session }
    };
    let mut lives: Vec<_> =
        (0..1000).map(|index| EventStream::life(client(index), &talk.settings)).collect();
    lives.sort_unstable();
    assert!(lives[0] >= longest * 3 / 4 && lives[0] < longest * 4 / 5, "{:?}", lives[0]);
    assert!(lives[999] <= longest && lives[999] > longest * 19 / 20, "{:?}", lives[999]);
    talk.get("/events?channel=a", "");
    talk.reply(1, &subscribed("a", 7, None));
    talk.asked();
    let mut life = Duration::ZERO;
    talk.of_stream(|stream, context| {
        life = EventStream::life(context.client, context.settings);
        let ms = Duration::from_millis(1);
        assert_eq!(stream.expire(life - ms, false, context), Flow::Receive);
        assert_eq!(stream.expire(life, false, context), Flow::Closed);
    });
    let asked = ["Deadline(1ms)", "Close(StreamLifetime)"];
    assert_eq!(talk.asked(), asked, "it is looked at when its time has come");
}

fn ended(request: &str, disconnect: &Disconnect) -> String {
    let mut talk = Talk::new();
    talk.receive(request);
    talk.reply(1, &subscribed("a", 7, None));
    talk.said();
    talk.of_stream(|stream, context| stream.disconnect(disconnect, false, context));
    talk.said()
}

/// r3labs/sse 2.10 takes every regular end for the end of all; without the last chunk (RFC 9112 8) it comes back, as
/// all others do.
#[test]
fn a_stream_whose_client_is_to_come_back_has_no_last_chunk() {
    for (reason, code) in [
        (CloseReason::Shutdown, 3001),
        (CloseReason::ForcedToReconnect, 3011),
        (CloseReason::SlowConsumer, 3008),
    ] {
        let expected = format!(
            "event: disconnect\ndata: {{\"code\":{code},\"reason\":\"{}\"}}\n\n",
            reason.label()
        );
        let chunked = "GET /events?channel=a HTTP/1.1\r\nHost: t\r\n\r\n";
        assert_eq!(chunks(&ended(chunked, &reason.into())), [expected.as_str()]);
        let old = "GET /events?channel=a HTTP/1.0\r\n\r\n";
        assert_eq!(ended(old, &reason.into()), expected);
    }
}

#[test]
fn a_stream_that_is_over_for_good_says_so_to_a_client_that_comes_back() {
    let disconnect = Disconnect {
        reason: CloseReason::Forced,
        code: Some(4500),
        text: Some("no \"more\"".into()),
    };
    let expected =
        "id: ended\nevent: disconnect\ndata: {\"code\":4500,\"reason\":\"no \\\"more\\\"\"}\n\n";
    let chunked = ended("GET /events?channel=a HTTP/1.1\r\nHost: t\r\n\r\n", &disconnect);
    assert_eq!(chunks(&chunked), [expected, ""], "with the last chunk");
    let old = ended("GET /events?channel=a HTTP/1.0\r\n\r\n", &disconnect);
    assert_eq!(old, expected);
    // WHATWG HTML 9.2.3: 204 tells a client to stop.
    for (target, header) in
        [("/events?channel=a", "Last-Event-ID: ended\r\n"), ("/events?lastEventId=ended", "")]
    {
        let mut talk = Talk::new();
        assert_eq!(talk.get(target, header), "receive");
        assert!(talk.said().starts_with("HTTP/1.1 204 "));
        assert_eq!(talk.asked(), ["Deadline(130s)"]);
    }
}

/// What waited gave way, perhaps the rest of an event whose id, or the size of whose chunk, has left.
#[test]
fn nothing_follows_an_event_of_several_channels_that_may_have_been_cut() {
    let reasons = [CloseReason::SlowConsumer, CloseReason::Overloaded];
    for (reason, is_incomplete) in reasons.into_iter().flat_map(|of| [(of, true), (of, false)]) {
        for query in ["channel=a&channel=b", "channel=a"] {
            let mut talk = Talk::new();
            talk.get(&format!("/events?{query}"), "");
            talk.reply(1, &subscribed("a", 7, None));
            talk.reply(2, &subscribed("b", 7, None));
            talk.said();
            if query == "channel=a" {
                // The server API gives it the other one.
                talk.of_stream(|stream, context| {
                    stream.reply(Origin::Server, &subscribed("b", 7, None), context)
                });
                talk.deliver(&[publication("b", 8, "x")]);
                talk.said();
            }
            talk.of_stream(|stream, context| {
                stream.disconnect(&reason.into(), is_incomplete, context);
            });
            assert_eq!(talk.said().is_empty(), is_incomplete, "{query} {reason:?}");
        }
    }
}

/// WHATWG HTML 9.2.3: a status other than 200 would end it for good.
#[test]
fn a_stream_that_cannot_begin_now_begins_and_ends() {
    let check = |said: &str| {
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("chunked"), "{said}");
        let [chunk] = chunks(body_of(said))[..] else { panic!("{said}") };
        let (retry, expected) = chunk.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
        assert!(EVENT_STREAM_RETRY_OVERLOADED_MS.contains(&retry.parse().unwrap()), "{retry}");
        let reason = "event: disconnect\ndata: {\"code\":3003,\"reason\":\"overloaded\"}\n\n";
        assert_eq!(expected, reason);
    };
    let opening = || {
        let mut talk = Talk::new();
        talk.get("/events?channel=a&channel=b", "");
        talk.reply(1, &subscribed("a", 7, None));
        talk
    };
    let mut talk = Talk::new();
    talk.is_overloaded = true;
    assert_eq!(talk.get("/events", ""), "closed");
    check(&talk.said());
    assert_eq!(talk.asked(), ["Refused", "Close(HttpDone)"]);
    let mut talk = opening();
    assert_eq!(talk.reply(2, &Reply::Refused(Refusal::Overloaded)), "closed");
    check(&talk.said());
    let mut talk = opening();
    talk.step(|http, context| {
        http.disconnect(&CloseReason::Overloaded.into(), false, context);
        HttpFlow::Closed
    });
    check(&talk.said());
    // Its subscriptions wait for the long answers of others.
    let mut talk = opening();
    assert_eq!(talk.step(expire), "closed");
    check(&talk.said());
    // A connection that ends without an answer is tried again.
    let mut talk = opening();
    talk.step(|http, context| {
        http.disconnect(&CloseReason::Shutdown.into(), false, context);
        HttpFlow::Closed
    });
    assert_eq!(talk.said(), "");
}

#[test]
fn clients_that_were_disconnected_together_come_back_apart() {
    let mut times: Vec<u32> = (0..1000)
        .map(|index| {
            let mut talk = Talk::new();
            talk.session = SessionId { index, generation: index + 1 };
            talk.get("/events", "");
            talk.reply(1, &subscribed("lobby", 0, None));
            let said = talk.said();
            let line = body_of(&said).split("retry: ").nth(1).unwrap().split('\n').next().unwrap();
            line.parse().unwrap()
        })
        .collect();
    times.sort_unstable();
    assert!(times.iter().all(|time| EVENT_STREAM_RETRY_MS.contains(time)));
    let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest < 100 && times[0] < 2100 && times[999] > 4900, "{widest} {times:?}");
}

#[test]
fn a_long_recovery_comes_in_parts_as_fast_as_the_client_reads() {
    let mut talk = Talk::with(|config| config.send_queue_bytes_max = 4096);
    talk.get("/events?channel=a&channel=b", &format!("Last-Event-ID: 0:{E}_4:{E}\r\n"));
    let missed = much();
    let part = |range: std::ops::Range<usize>, has_more| {
        let publications = missed[range].into();
        Some(Recovery { is_complete: true, publications, has_more })
    };
    talk.asked();
    talk.reply(2, &subscribed("b", 4, recovered(&[])));
    // A part that is more than fits an answer beside the others'.
    assert_eq!(talk.reply(1, &subscribed("a", 10, part(0..4, true))), "await drain");
    let said = talk.said();
    let begun = chunks(body_of(&said));
    assert_eq!(opening(begun[0]), begins_at(&format!("0:{E}_4:{E}")));
    assert!(begun[2].starts_with(&format!("id: 2:{E}_4:{E}\n")) && begun.len() == 3, "{begun:?}");
    assert_eq!(talk.asked(), ["LeaveChannels", "Deadline(25s)"]);
    // Meanwhile something was published to the other channel.
    assert_eq!(talk.step(HttpConversation::drained), "await");
    assert_eq!(talk.asked(), [format!("1 a 2:{E}"), format!("2 b 4:{E}")]);
    talk.reply(1, &subscribed("a", 10, part(2..3, true)));
    let more = recovered(&[publication("b", 5, "y")]);
    assert_eq!(talk.reply(2, &subscribed("b", 5, more)), "await drain");
    let said = talk.said();
    assert!(chunks(&said)[1].starts_with(&format!("id: 3:{E}_5:{E}\n")), "{said}");
    // What followed is lost by now.
    talk.step(HttpConversation::drained);
    talk.asked();
    talk.reply(1, &subscribed("a", 10, impossible()));
    assert_eq!(talk.reply(2, &subscribed("b", 5, recovered(&[]))), "stream");
    assert_eq!(chunks(&talk.said()), [begins_with_a_gap(&format!("10:{E}_5:{E}"))]);
    assert_eq!(talk.asked(), ["Deadline(25s)"]);
    talk.deliver(&[publication("a", 11, "z")]);
    assert_eq!(chunks(&talk.said()), [event(&format!("11:{E}_5:{E}"), "z")]);
}

/// Its status is written: whatever happens, it is cut, and its client comes back for the rest.
#[test]
fn a_stream_whose_rest_cannot_come_is_cut() {
    let begun = || {
        let mut talk = Talk::new();
        talk.get("/events?channel=a", &format!("Last-Event-ID: 0:{E}\r\n"));
        let publications = much()[..2].into();
        let part = Recovery { is_complete: true, publications, has_more: true };
        assert_eq!(talk.reply(1, &subscribed("a", 10, Some(part))), "await drain");
        talk.said();
        talk
    };
    let end = |reason: CloseReason| {
        move |http: &mut HttpConversation, context: &mut Context<'_>| {
            http.disconnect(&reason.into(), false, context);
            HttpFlow::Closed
        }
    };
    let mut talk = begun();
    assert_eq!(talk.step(expire), "closed");
    assert_eq!(talk.said(), "");
    for reason in [CloseReason::Overloaded, CloseReason::Shutdown] {
        let mut talk = begun();
        talk.step(end(reason));
        assert_eq!(talk.said(), "");
    }
    for refusal in [Refusal::Overloaded, Refusal::PermissionDenied] {
        let mut talk = begun();
        talk.step(HttpConversation::drained);
        assert_eq!(talk.reply(1, &Reply::Refused(refusal)), "closed");
        assert_eq!(talk.said(), "");
    }
}

#[test]
fn too_much_before_all_subscriptions_are_made_is_a_gap() {
    let mut talk = Talk::new();
    talk.get("/events?channel=a&channel=b", "");
    talk.reply(1, &subscribed("a", 0, None));
    let batch: Vec<_> = (1..=1024).map(|offset| publication("a", offset, "x")).collect();
    for _ in 0..=crate::config::limits::OPENING_PUBLICATIONS_MAX / batch.len() {
        talk.deliver(&batch);
    }
    assert_eq!(talk.reply(2, &subscribed("b", 0, None)), "stream");
    let said = talk.said();
    let [begun] = chunks(body_of(&said))[..] else { panic!("{said}") };
    assert_eq!(opening(begun), begins_with_a_gap(&format!("1024:{E}_0:{E}")));
}
