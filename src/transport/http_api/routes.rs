//! The routes of HTTP: one row each.

use super::command_stream::Sends;
use crate::protocol::http1::Head;
use crate::transport::stream_form::StreamKind;

/// A route: an address and what is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// The path; one that ends with `/` is the beginning of several, but for the root.
    pub path: &'static str,
    /// The methods in `Allow`; `None` for addresses that are WebSockets only.
    pub methods: Option<&'static str>,
    pub action: Action,
    /// Whether connections beyond the maximum are served this address too.
    pub is_for_all: bool,
    /// Whether it is for administration, and therefore on addresses of its own if there are any.
    pub is_for_admin: bool,
    /// The lines of the welcome text about it.
    pub help: &'static str,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The page or the welcome text; a plain WebSocket if the request asks for one.
    Home,
    PlainWebSocket,
    CommandWebSocket,
    CommandStream(StreamKind, Sends),
    UniWebSocket,
    Emulation,
    Events,
    Poll,
    Publish,
    Api,
    Live,
    Ready,
    Metrics,
}

const LINES: Action = Action::CommandStream(StreamKind::Lines, Sends::RepliesToo);
const EVENTS: Action = Action::CommandStream(StreamKind::Events, Sends::RepliesToo);
const UNI_LINES: Action = Action::CommandStream(StreamKind::Lines, Sends::Pushes);
const UNI_EVENTS: Action = Action::CommandStream(StreamKind::Events, Sends::Pushes);

const READ: Option<&str> = Some("GET, HEAD, OPTIONS");
const READ_WRITE: Option<&str> = Some("GET, POST, OPTIONS");
const WRITE: Option<&str> = Some("POST, OPTIONS");

/// Balancers and orchestrators would take a server that is full for a dead one, so they are answered all the same.
/// Event streams are refused in their own way: an error would end them for good.
const ROUTES: &[Route] = &[
    route("/", READ, Action::Home, ""),
    route(
        "/ws",
        None,
        Action::PlainWebSocket,
        "GET  /ws?channel=a        a WebSocket: what is published to a channel, each publication one message;
                          what you send is published to the first channel named, or to the lobby
",
    ),
    route("/connection/websocket", None, Action::CommandWebSocket, ""),
    route("/connection/http_stream", WRITE, LINES, ""),
    route("/connection/sse", READ_WRITE, EVENTS, ""),
    route("/connection/uni_websocket", None, Action::UniWebSocket, ""),
    route("/connection/uni_http_stream", WRITE, UNI_LINES, ""),
    route("/connection/uni_sse", READ_WRITE, UNI_EVENTS, ""),
    route("/emulation", WRITE, Action::Emulation, ""),
    for_all(route(
        "/events",
        READ,
        Action::Events,
        "GET  /events?channel=a    the same as an event stream, for EventSource\n",
    )),
    route(
        "/poll",
        READ,
        Action::Poll,
        "GET  /poll?channel=a      the same, one answer at a time: as soon as something is published, or after 25 \
         seconds\n",
    ),
    route(
        "/publish",
        WRITE,
        Action::Publish,
        "POST /publish?channel=a   publishes the body; event=NAME is its type of event\n",
    ),
    route(
        "/api/",
        WRITE,
        Action::Api,
        "POST /api/METHOD          the server API, as Centrifugo has it\n",
    ),
    route("/api", WRITE, Action::Api, ""),
    for_all(route("/health", READ, Action::Live, "")),
    for_all(route(
        "/health/live",
        READ,
        Action::Live,
        "GET  /health/live         whether the server runs\n",
    )),
    for_all(route(
        "/health/ready",
        READ,
        Action::Ready,
        "GET  /health/ready        whether it accepts connections: 503 when it does not\n",
    )),
    for_all(route(
        "/metrics",
        READ,
        Action::Metrics,
        "GET  /metrics             what it counts, as Prometheus text\n",
    )),
];

const fn route(
    path: &'static str,
    methods: Option<&'static str>,
    action: Action,
    help: &'static str,
) -> Route {
    let is_for_admin = matches!(
        action,
        Action::Home | Action::Api | Action::Live | Action::Ready | Action::Metrics
    );
    Route { path, methods, action, is_for_all: false, is_for_admin, help }
}

const fn for_all(route: Route) -> Route {
    Route { is_for_all: true, ..route }
}

/// The route of a path.
pub(super) fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| {
        let is_prefix = route.path.len() > 1 && route.path.ends_with('/');
        if is_prefix { path.starts_with(route.path) } else { path == route.path }
    })
}

/// What follows the path of a route that is the beginning of several.
pub(super) fn name_behind<'h>(route: &Route, head: &Head<'h>) -> &'h str {
    head.path.strip_prefix(route.path).unwrap_or_default()
}

/// The welcome text: every route with what it does.
pub(super) fn welcome() -> String {
    let help = ROUTES.iter().map(|route| route.help);
    ["This is fantail.\n\n"].into_iter().chain(help).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_route_that_is_named_for_it() {
        for (path, action) in [
            ("/", Some(Action::Home)),
            ("/poll", Some(Action::Poll)),
            ("/poll/", None),
            ("/api/publish", Some(Action::Api)),
            ("/api/", Some(Action::Api)),
            ("/api", Some(Action::Api)),
            ("/health", Some(Action::Live)),
            ("/health/", None),
            ("/nothing", None),
            ("", None),
        ] {
            assert_eq!(find(path).map(|route| route.action), action, "{path}");
        }
    }

    #[test]
    fn the_welcome_text_has_a_line_for_each_address_that_a_person_may_try() {
        let welcome = welcome();
        assert_eq!(welcome.lines().count(), 11, "{welcome}");
        for route in ROUTES.iter().filter(|route| !route.help.is_empty()) {
            assert!(welcome.contains(route.path), "{}", route.path);
        }
    }
}
