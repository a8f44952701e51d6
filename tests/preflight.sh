#!/bin/sh
# Says what this machine lacks before a build runs into it: each missing thing with its Debian
# package, all of them at once. Exit 0: nothing. Exit 2: something.
set -u

missing=''
packages=''

# lacks WHAT WHY [PACKAGE]
lacks() {
    missing="$missing
  $1: $2"
    packages="$packages ${3-}"
}

has() { command -v "$1" >/dev/null 2>&1; }

# major VERSION: the number before the first dot.
major() { echo "$1" | sed 's/[^0-9].*//'; }

has cargo || lacks cargo 'the Rust toolchain, 1.95 or newer, as rustup installs it'
{ has cc || has "${CC:-gcc}"; } || lacks cc 'a C compiler, for librdkafka' build-essential
has make || lacks make 'for librdkafka' build-essential

if has pkg-config; then
    pkg-config --exists openssl || [ -n "${OPENSSL_DIR-}" ] ||
        lacks openssl 'headers, for librdkafka with TLS' libssl-dev
    pkg-config --exists zlib || lacks zlib 'headers, for librdkafka' zlib1g-dev
else
    lacks pkg-config 'finds the C libraries' pkg-config
    [ -e /usr/include/openssl/ssl.h ] || lacks openssl 'headers, for librdkafka with TLS' libssl-dev
    [ -e /usr/include/zlib.h ] || lacks zlib 'headers, for librdkafka' zlib1g-dev
fi

has node || lacks node 'npm runs on it' nodejs
has npm || lacks npm 'fetches the Postgres servers' npm

if has java; then
    version=$(java -version 2>&1 | sed -n 's/.* version "\([^"]*\)".*/\1/p' | head -n 1)
    version=$(major "${version:-0}")
    [ "${version:-0}" -ge 17 ] || lacks java "is version $version; Kafka runs on 17 or newer" \
        default-jre-headless
else
    lacks java 'Kafka runs on it, 17 or newer' default-jre-headless
fi
has mvn || [ -n "${KAFKA_HOME-}" ] || lacks mvn 'fetches Kafka; or name one in KAFKA_HOME' maven

[ -z "$missing" ] && exit 0
{
    echo "this machine lacks:$missing"
    packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
    [ -n "$packages" ] && echo "on Debian: apt-get install --no-install-recommends $packages"
} >&2
exit 2
