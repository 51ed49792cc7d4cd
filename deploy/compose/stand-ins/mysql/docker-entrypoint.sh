#!/bin/bash
# Makes the data directory the first time, as the entry point of mysql:8.0 does: account and passwords by the variables
# that compose.yaml uses, then the files of /docker-entrypoint-initdb.d, on a server that no client can reach yet.
set -euo pipefail
data=/var/lib/mysql
run=(/opt/mysql/bin/mysqld --no-defaults --basedir=/opt/mysql --lc-messages-dir=/opt/mysql/share --datadir="$data/db"
    --socket=/tmp/mysqld.sock --pid-file=/tmp/mysqld.pid)
shift # "mysqld", the first word of the command
if [ ! -d "$data/db" ]; then
    rm -rf "$data/new"
    /opt/mysql/bin/mysqld --no-defaults --initialize-insecure --basedir=/opt/mysql --lc-messages-dir=/opt/mysql/share \
        --datadir="$data/new"
    mv "$data/new" "$data/db"
    "${run[@]}" "$@" --skip-networking &
    server=$!
    until mysqladmin --no-defaults --silent --socket=/tmp/mysqld.sock --user=root ping; do sleep 0.2; done
    password=$(cat "$MYSQL_PASSWORD_FILE")
    {
        echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$password';"
        cat /docker-entrypoint-initdb.d/*.sql
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$(cat "$MYSQL_ROOT_PASSWORD_FILE")';"
    } | mysql --no-defaults --socket=/tmp/mysqld.sock --user=root
    kill "$server"
    wait "$server"
fi
exec "${run[@]}" --port=3306 "$@"
