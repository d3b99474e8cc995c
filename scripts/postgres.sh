# A PostgreSQL cluster in a directory, for scripts that source this.

postgres=
postgres_port=

# postgres_start DIR [OPTION…]: makes the cluster if it isn't there, starts it on a free port of 127.0.0.1 with further options of
# `postgres`, and returns when it answers. Sets `postgres` to its process ID and `postgres_port`.
postgres_start() {
    local dir=$1 bin as=()
    shift
    bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
    [[ -n $bin ]] || bin=$(dirname "$(command -v postgres)")
    mkdir -p "$dir"
    # PostgreSQL refuses to run as root: then its own user does.
    if [[ $(id -u) -eq 0 ]]; then
        chmod 711 "$(dirname "$dir")"
        chown postgres "$dir"
        as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    fi
    if [[ ! -d $dir/data ]]; then
        (cd "$dir" && "${as[@]}" "$bin/initdb" --auth=trust --username=roost --encoding=UTF8 --locale=C --pgdata=data \
            >initdb.log 2>&1) || {
            cat "$dir/initdb.log"
            return 1
        }
    fi
    postgres_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # setpriv becomes postgres, so its process ID is the right one.
    (cd "$dir" && exec "${as[@]}" "$bin/postgres" -D data -k "$dir" -c listen_addresses=127.0.0.1 -c port="$postgres_port" "$@") \
        >"$dir.log" 2>&1 </dev/null &
    postgres=$!
    for _ in $(seq 100); do
        "$bin/pg_isready" --quiet --host=127.0.0.1 --port="$postgres_port" && return 0
        kill -0 "$postgres" 2>/dev/null || break
        sleep 0.1
    done
    cat "$dir.log"
    return 1
}

# Ends it, by its process ID.
postgres_stop() {
    if [[ -n $postgres ]] && kill -0 "$postgres" 2>/dev/null; then
        kill -INT "$postgres" || true
        wait "$postgres" 2>/dev/null || true
    fi
}
