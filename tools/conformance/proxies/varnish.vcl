vcl 4.1;
backend fantail {
    .host = "127.0.0.1";
    .port = "8000";
    .first_byte_timeout = 130s;
    .between_bytes_timeout = 130s;
}
sub vcl_recv {
    if (req.http.Upgrade ~ "(?i)websocket") {
        return (pipe);
    }
    if (req.method == "HEAD" || req.url ~ "^/(events|poll|publish|api/|metrics|health/)") {
        return (pass);
    }
}
sub vcl_pipe {
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
}
