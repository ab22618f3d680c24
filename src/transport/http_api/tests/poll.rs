//! Polls that wait, and what they are answered.

use super::*;

/// A poll of channel `a` that waits at 7.
pub(super) fn waiting(query: &str, headers: &str) -> Talk {
    let mut talk = Talk::new();
    talk.get(&format!("/poll?channel=a{query}"), headers);
    assert_eq!(talk.reply(1, &subscribed("a", 7, recovered(&[]))), "receive");
    assert!(talk.http.is_polling());
    assert_eq!(talk.said(), "");
    talk
}

#[test]
fn a_poll_waits_for_a_publication_and_leaves() {
    let mut talk = waiting(&format!("&since=7:{E}&timeout=1"), "");
    assert_eq!(talk.asked(), [format!("1 a 7:{E}"), "Deadline(1s)".to_owned()]);
    talk.deliver(&[news("a")]);
    assert_eq!(talk.said(), "", "news alone is no answer");
    talk.deliver(&[publication("a", 8, "x"), news("a"), publication("a", 9, "y")]);
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
    assert_eq!(talk.asked(), ["Leave", "Deadline(75s)"]);
    assert!(!talk.http.is_polling());
}

#[test]
fn a_poll_is_answered_at_its_timeout() {
    let mut talk = waiting("&since=", "");
    assert_eq!(talk.asked(), ["1 a now", "Deadline(30s)"]);
    assert_eq!(talk.step(HttpConversation::time_out), "receive");
    let expected = serde_json::json!({
        "publications": [], "timeout": true, "position": format!("7:{E}"),
    });
    assert_eq!(talk.answer().1, expected);
    assert_eq!(talk.asked(), ["Leave", "Deadline(75s)"]);
}

#[test]
fn a_poll_is_answered_at_once_with_what_was_missed() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&channel=b", &format!("If-None-Match: W/\"5:{E}_2:{E}\"\r\n"));
    assert_eq!(talk.asked(), [format!("1 a 5:{E}"), format!("2 b 2:{E}")]);
    talk.reply(1, &subscribed("a", 6, recovered(&[publication("a", 6, "x")])));
    talk.deliver(&[publication("a", 7, "meanwhile")]);
    assert_eq!(talk.reply(2, &subscribed("b", 2, recovered(&[]))), "receive");
    let (head, body) = talk.answer();
    assert!(head.contains(&format!("ETag: \"7:{E}_2:{E}\"")), "{head}");
    assert_eq!(body["publications"][1]["data"], "meanwhile");
    assert!(!talk.http.is_polling());
}

#[test]
fn what_comes_while_subscriptions_are_made_answers_a_poll() {
    let mut talk = Talk::new();
    talk.get("/poll?channel=a&channel=b", "");
    assert_eq!(talk.reply(1, &subscribed("a", 7, None)), "await");
    talk.deliver(&[publication("a", 8, "held")]);
    assert_eq!(talk.said(), "");
    assert_eq!(talk.reply(2, &subscribed("b", 0, None)), "receive");
    let (_, body) = talk.answer();
    expect_one(&body, "held", format!("8:{E}_0:{E}"));
}

#[test]
fn a_poll_that_cannot_go_on_is_told_and_begins_anew() {
    let mut talk = Talk::new();
    talk.get(&format!("/poll?channel=a&since=3:{E}"), "");
    talk.reply(1, &subscribed("a", 9, impossible()));
    let expected = serde_json::json!({
        "publications": [], "recovered": false, "position": format!("9:{E}"),
    });
    assert_eq!(talk.answer().1, expected);
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
    // The cookie of other channels, and one that makes no sense, are no position.
    for (query, cookie) in
        [("channel=b", cookie(&head)), ("channel=a", cookie(&head).replace(':', "x"))]
    {
        let mut talk = Talk::new();
        talk.get(&format!("/poll?{query}"), &format!("Cookie: {cookie}\r\n"));
        assert!(talk.asked()[0].ends_with(" now"), "{cookie}");
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
fn what_is_pipelined_behind_a_poll_waits_for_its_answer() {
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
        ["Leave", "Deadline(75s)", "Deadline(75s)", "1 b now", "Deadline(10s)"]
    );
    assert_eq!(talk.reply(1, &subscribed("b", 0, None)), "receive");
    assert!(talk.http.is_polling());
    assert_eq!(talk.receive(&"x".repeat(17_000)), "await", "more is not read while it waits");
}

#[test]
fn a_poll_is_told_nothing_came_when_the_server_ends() {
    let mut talk = waiting("", "");
    talk.step(|http, context| {
        http.say_goodbye(CloseReason::Shutdown, context);
        HttpFlow::Closed
    });
    let (head, body) = talk.answer();
    assert!(head.contains("Connection: close"), "{head}");
    assert_eq!((&body["timeout"], &body["data"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn a_waiting_poll_is_small() {
    assert!(size_of::<HttpConversation>() <= 24);
    assert!(size_of::<Poll>() <= 64, "{}", size_of::<Poll>());
}

#[test]
fn a_poll_is_told_of_what_was_dropped_before_what_it_gets() {
    let gap = |channel: &str| {
        let mut gap = (*news(channel)).clone();
        gap.payload = Payload::new(PayloadKind::Gap, "3");
        Arc::new(gap)
    };
    let (one, other) = (publication("a", 11, "x"), publication("a", 15, "y"));
    let told = |query: &str, batches: &[&[_]]| {
        let mut talk = waiting(query, "");
        batches.iter().for_each(|batch| talk.deliver(batch));
        let (_, body) = talk.answer();
        (body["recovered"].as_bool(), body["publications"].as_array().map_or(0, Vec::len))
    };
    let since = &format!("&since=7:{E}");
    assert_eq!(told(since, &[&[gap("a"), one.clone()]]), (Some(false), 1));
    assert_eq!(told(since, &[&[one.clone(), gap("a"), other.clone()]]), (Some(false), 2));
    assert_eq!(told("", &[&[gap("a"), one.clone()]]), (Some(false), 1));
    // The news comes alone, and the publication behind it.
    assert_eq!(told(since, &[&[gap("a")], std::slice::from_ref(&one)]), (Some(false), 1));
    // What is dropped behind the answer is the next one's to tell.
    assert_eq!(told(since, &[&[one.clone(), gap("a")]]), (None, 1));
    assert_eq!(told("", &[&[one, gap("a"), other]]), (None, 1));
}
