//! Polls that wait, and what they are answered.

use super::*;
use crate::protocol::long_poll::CookieName;

/// A poll of channel `a` that waits at 7.
pub(super) fn waiting(query: &str, headers: &str) -> Talk {
    let mut talk = Talk::new();
    talk.get(&format!("/poll?channel=a{query}"), headers);
    assert_eq!(talk.reply(1, &subscribed("a", 7, recovered(&[]))), "receive");
    assert!(talk.http.state.poll().is_some());
    assert_eq!(talk.said(), "");
    talk
}

#[test]
fn a_poll_waits_for_a_publication_and_leaves() {
    let mut talk = waiting(&format!("&since=7:{E}&timeout=1"), "");
    assert_eq!(talk.asked(), [format!("1 a 7:{E}"), "DeadlineWithin(1s)".to_owned()]);
    talk.deliver_items("a", &[joined()]);
    assert_eq!(talk.said(), "", "a join alone does not answer a poll");
    talk.deliver_items("a", &[item("a", 8, "x"), joined(), item("a", 9, "y")]);
    let (head, body) = talk.answer();
    assert!(
        head.contains("Connection: keep-alive") && head.contains(&format!("ETag: \"9:{E}\"")),
        "{head}"
    );
    assert!(!head.contains("Cookie"), "{head}");
    let expected = serde_json::json!({
        "publications": [
            {"channel": "a", "offset": 8, "data": "x"},
            {"channel": "a", "offset": 9, "data": "y"},
        ],
        "position": format!("9:{E}"),
    });
    assert_eq!(body, expected);
    assert_eq!(talk.asked(), ["Leave", "Deadline(130s)"]);
    assert!(talk.http.state.poll().is_none());
}

#[test]
fn a_poll_is_answered_at_its_timeout() {
    let mut talk = waiting("&since=", "");
    assert_eq!(talk.asked(), ["1 a now", "DeadlineWithin(25s)"]);
    assert_eq!(talk.step(expire), "receive");
    let expected = serde_json::json!({
        "publications": [], "timeout": true, "position": format!("7:{E}"),
    });
    assert_eq!(talk.answer().1, expected);
    assert_eq!(talk.asked(), ["Leave", "Deadline(130s)"]);
}

#[test]
fn a_poll_is_answered_at_once_with_missed_publications() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&channel=b", &format!("If-None-Match: W/\"5:{E}_2:{E}\"\r\n"));
    assert_eq!(talk.asked(), [format!("1 a 5:{E}"), format!("2 b 2:{E}")]);
    talk.reply(1, &subscribed("a", 6, recovered(&[publication("a", 6, "x")])));
    talk.deliver(&[publication("a", 7, "meanwhile")]);
    assert_eq!(talk.reply(2, &subscribed("b", 2, recovered(&[]))), "receive");
    let (head, body) = talk.answer();
    assert!(head.contains(&format!("ETag: \"7:{E}_2:{E}\"")), "{head}");
    assert_eq!(body["publications"][1]["data"], "meanwhile");
    assert!(talk.http.state.poll().is_none());
}

#[test]
fn a_publication_received_while_subscribing_answers_a_poll() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&channel=b", "");
    assert_eq!(talk.reply(1, &subscribed("a", 7, None)), "await");
    talk.deliver(&[publication("a", 8, "held")]);
    assert_eq!(talk.said(), "");
    assert_eq!(talk.reply(2, &subscribed("b", 0, None)), "receive");
    let (_, body) = talk.answer();
    expect_one(&body, "held", format!("8:{E}_0:{E}"));
}

/// A client whose channel keeps nothing would ask again and again, and hear nothing.
#[test]
fn a_poll_that_cannot_go_on_waits_for_what_comes_and_says_so_with_it() {
    let waiting = |query: &str, headers: &str| {
        let mut talk = Talk::new();
        talk.get(&format!("/poll?channel=a{query}"), headers);
        assert_eq!(talk.reply(1, &subscribed("a", 9, impossible())), "receive");
        assert!(talk.http.state.poll().is_some() && talk.said().is_empty());
        talk
    };
    let query = format!("&since=3:{E}");
    let cookie = format!("Cookie: {}=3:{E}\r\n", CookieName::of(["a"]));
    for (query, headers) in [
        (&*query, &*format!("Last-Event-ID: 3:{E}\r\n")),
        ("", &*format!("Last-Event-ID: 3:{E}\r\n")),
        ("", &*format!("If-None-Match: \"3:{E}\"\r\n")),
        ("", &*cookie),
    ] {
        let mut talk = waiting(query, headers);
        talk.deliver(&[publication("a", 10, "x")]);
        let (_, body) = talk.answer();
        assert_eq!(body["publications"][0]["data"], "x");
        assert_eq!(
            (&body["recovered"], &body["position"]),
            (&false.into(), &format!("10:{E}").into())
        );
        let mut talk = waiting(query, headers);
        talk.step(expire);
        let (_, body) = talk.answer();
        assert_eq!((&body["recovered"], &body["timeout"]), (&false.into(), &true.into()));
        assert_eq!(body["position"], format!("9:{E}"));
    }
    // One of several channels cannot go on.
    let mut talk = Talk::new();
    talk.get(&format!("/poll?channel=a&channel=b&since=3:{E}_4:{E}"), "");
    talk.reply(1, &subscribed("a", 9, impossible()));
    assert_eq!(talk.reply(2, &subscribed("b", 4, recovered(&[]))), "receive");
    assert!(talk.http.state.poll().is_some());
    talk.deliver(&[publication("b", 5, "x")]);
    let (_, body) = talk.answer();
    assert_eq!(
        (&body["recovered"], &body["position"]),
        (&false.into(), &format!("9:{E}_5:{E}").into())
    );
}

#[test]
fn the_history_after_a_gap_answers_a_poll() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&since=3:ffffffff", "");
    let kept = [publication("a", 8, "x"), publication("a", 9, "y")];
    let recovery = Recovery { is_complete: false, publications: kept[..].into(), has_more: false };
    talk.reply(1, &subscribed("a", 9, Some(recovery)));
    let (_, body) = talk.answer();
    assert_eq!(body["publications"].as_array().map(Vec::len), Some(2));
    assert_eq!((&body["recovered"], &body["position"]), (&false.into(), &format!("9:{E}").into()));
}

#[test]
fn a_poll_of_no_time_is_answered_at_once() {
    for (target, position) in [
        ("/poll?channel=a&timeout=0".to_owned(), 7),
        (format!("/poll?channel=a&timeout=0&since=7:{E}"), 7),
    ] {
        let mut talk = Talk::new();
        talk.get(&target, "");
        let recovery = target.contains("since").then(|| recovered(&[]).unwrap());
        assert_eq!(talk.reply(1, &subscribed("a", 7, recovery)), "receive");
        let (head, body) = talk.answer();
        assert_eq!(
            (&body["timeout"], &body["position"]),
            (&true.into(), &format!("{position}:{E}").into())
        );
        assert!(head.contains("Cache-Control: no-store, no-transform"), "{head}");
        assert!(talk.http.state.poll().is_none());
    }
}

/// RFC 9110 13.1.2 and 8.8.3: the condition is `*` or a list of tags. Compressors append to them: Apache and lighttpd
/// `-gzip`, Jetty `--gzip`, others `;gzip`; nginx makes them weak.
#[test]
fn a_tag_is_a_position_in_every_form_and_never_a_mistake() {
    for (tags, since) in [
        (format!("\"7:{E}\""), format!("7:{E}")),
        (format!("W/\"7:{E}\""), format!("7:{E}")),
        (format!("\"7:{E}-gzip\""), format!("7:{E}")),
        (format!("W/\"7:{E}-timeout--gzip\""), format!("7:{E}")),
        (format!("\"7:{E};br\""), format!("7:{E}")),
        (format!("7:{E}"), format!("7:{E}")),
        (format!("\"x\", \"7:{E}\""), format!("7:{E}")),
        (format!("\"x\"\r\nIf-None-Match: \"7:{E}\""), format!("7:{E}")),
        ("*".to_owned(), "0:00000000".to_owned()),
        ("\"x\"".to_owned(), "0:00000000".to_owned()),
        ("\"".to_owned(), "0:00000000".to_owned()),
        ("W/".to_owned(), "0:00000000".to_owned()),
        ("\"\u{e9}\"".to_owned(), "0:00000000".to_owned()),
        (String::new(), "now".to_owned()),
    ] {
        let mut talk = Talk::new();
        assert_eq!(talk.get("/poll?channel=a", &format!("If-None-Match: {tags}\r\n")), "await");
        assert_eq!(talk.asked(), [format!("1 a {since}")], "{tags}");
    }
}

/// A cache that answers conditions itself makes an answer with the tag that was asked with a 304 without a body.
#[test]
fn nothing_came_has_another_tag_than_the_one_asked_with() {
    let mut tag = format!("\"7:{E}\"");
    for _ in 0..4 {
        let mut talk = waiting("", &format!("If-None-Match: {tag}\r\n"));
        talk.step(expire);
        let (head, _) = talk.answer();
        let next = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
        assert_ne!(next, tag);
        tag = next.to_owned();
    }
}

#[test]
fn a_long_recovery_is_answered_piece_by_piece() {
    let mut talk = Talk::with(|config| config.send_queue_bytes_max = 4096);
    talk.get(&format!("/poll?channel=a&since=0:{E}"), "");
    let missed = much();
    talk.reply(1, &subscribed("a", 10, recovered(&missed)));
    let (_, body) = talk.answer();
    assert_eq!(body["publications"].as_array().unwrap().len(), 3);
    assert_eq!(body["position"], format!("3:{E}"), "the next poll goes on from there");
    let mut talk = Talk::new();
    talk.get(&format!("/poll?channel=a&since=0:{E}"), "");
    let part = Recovery { is_complete: true, publications: missed[..2].into(), has_more: true };
    assert_eq!(talk.reply(1, &subscribed("a", 10, Some(part))), "receive");
    assert_eq!(talk.answer().1["position"], format!("2:{E}"));
}

fn expect_one(body: &serde_json::Value, data: &str, position: String) {
    assert_eq!((body["data"].as_str(), body["position"].as_str()), (Some(data), Some(&*position)));
}

#[test]
fn a_bare_loop_gets_one_publication_at_a_time_and_a_cookie() {
    let cookie = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).unwrap();
        line.split_once(';').unwrap().0.to_owned()
    };
    let mut talk = waiting("", "");
    talk.deliver(&[publication("a", 8, "x"), publication("a", 9, "y")]);
    let (head, body) = talk.answer();
    expect_one(&body, "x", format!("8:{E}"));
    talk.asked();
    talk.get("/poll?channel=a", &format!("Cookie: {}\r\n", cookie(&head)));
    assert_eq!(talk.asked()[0], format!("1 a 8:{E}"));
    talk.reply(
        1,
        &subscribed("a", 10, recovered(&[publication("a", 9, "y"), publication("a", 10, "z")])),
    );
    let (head, body) = talk.answer();
    expect_one(&body, "y", format!("9:{E}"));
    assert!(cookie(&head).ends_with(&format!("=9:{E}")), "{head}");
    // The cookie of other channels is ignored, and an invalid one is an unknown position.
    for (query, cookie, since) in [
        ("channel=b", cookie(&head), " now"),
        ("channel=a", cookie(&head).replace(':', "x"), " 0:00000000"),
    ] {
        let mut talk = Talk::new();
        talk.get(&format!("/poll?{query}"), &format!("Cookie: {cookie}\r\n"));
        assert!(talk.asked()[0].ends_with(since), "{cookie}");
    }
}

#[test]
fn one_of_several_channels_answers_a_bare_loop() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&channel=b", "");
    talk.reply(1, &subscribed("a", 1, None));
    talk.reply(2, &subscribed("b", 2, None));
    talk.deliver(&[publication("b", 3, "x"), publication("b", 4, "y")]);
    let (_, body) = talk.answer();
    expect_one(&body, "x", format!("1:{E}_3:{E}"));
}

#[test]
fn a_request_pipelined_behind_a_poll_waits_for_its_answer() {
    let mut talk = waiting("", "");
    assert_eq!(talk.get("/health/live", ""), "receive");
    let poll = "GET /poll?channel=b HTTP/1.1\r\nHost: t\r\n\r\n";
    let (front, back) = poll.split_at(10);
    assert_eq!(talk.receive(front), "receive");
    assert_eq!(talk.receive(back), "receive");
    talk.asked();
    talk.deliver(&[publication("a", 8, "x")]);
    let said = talk.said();
    let (first, second) = (said.find("\"data\":\"x\"").unwrap(), said.find("\"live\"").unwrap());
    assert!(first < second, "{said}");
    assert_eq!(
        talk.asked(),
        ["Leave", "Deadline(130s)", "Deadline(130s)", "1 b now", "Deadline(10s)"]
    );
    assert_eq!(talk.reply(1, &subscribed("b", 0, None)), "receive");
    assert!(talk.http.state.poll().is_some());
    assert_eq!(talk.receive(&"x".repeat(17_000)), "await", "more is not read while it waits");
}

#[test]
fn a_poll_times_out_early_when_the_server_ends() {
    let mut talk = waiting("", "");
    talk.step(|http, context| {
        http.disconnect(&CloseReason::Shutdown.into(), false, context);
        HttpFlow::Closed
    });
    let (head, body) = talk.answer();
    assert!(head.contains("Connection: close"), "{head}");
    assert_eq!((&body["timeout"], &body["data"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn a_waiting_poll_is_small() {
    assert!(size_of::<HttpConversation>() <= 24);
    assert!(size_of::<Awaiting>() <= 64, "{}", size_of::<Awaiting>());
}

#[test]
fn a_poll_reports_what_was_dropped_before_its_publications() {
    let gap = Item::Gap(3);
    let (one, other) = (item("a", 11, "x"), item("a", 15, "y"));
    let answers = |query: &str, batches: &[&[_]]| {
        let mut talk = waiting(query, "");
        batches.iter().for_each(|batch| talk.deliver_items("a", batch));
        let (_, body) = talk.answer();
        (body["recovered"].as_bool(), body["publications"].as_array().map_or(0, Vec::len))
    };
    let since = &format!("&since=7:{E}");
    assert_eq!(answers(since, &[&[gap.clone(), one.clone()]]), (Some(false), 1));
    assert_eq!(answers(since, &[&[one.clone(), gap.clone(), other.clone()]]), (Some(false), 2));
    assert_eq!(answers("", &[&[gap.clone(), one.clone()]]), (Some(false), 1));
    // The gap comes alone, and the publication behind it.
    assert_eq!(
        answers(since, &[std::slice::from_ref(&gap), std::slice::from_ref(&one)]),
        (Some(false), 1)
    );
    // What is dropped behind the answer is the next one's to tell.
    assert_eq!(answers(since, &[&[one.clone(), gap.clone()]]), (None, 1));
    assert_eq!(answers("", &[&[one, gap.clone(), other]]), (None, 1));
}
