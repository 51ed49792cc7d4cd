#!/usr/bin/env bash
# Checks of deploy/ec2/ what can be checked without a cloud, prints a verdict for each check, and fails if one failed.
# What a check needs and this machine lacks is named, and the check is skipped.
#
#   deploy/ec2/check.sh             all of it: two to four minutes, and as root, for a Debian root of its own
#   deploy/ec2/check.sh --quick     without the Debian root: seconds
#
# DEBIAN_MIRROR=URL: where the Debian root comes from [default: where apt of this machine gets its packages, else
# debootstrap's own]. It works in a folder of its own under TMPDIR, and removes it.
# What stands in single quotes is for another shell.
# shellcheck disable=SC2016
set -euo pipefail

case ${1:-} in
    "" | --quick) mode=${1:-all} ;;
    -h | --help)
        sed -n '2,/^# What stands/{/^# What stands/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        echo "check.sh takes --quick, --help or nothing, not: $1" >&2
        exit 2
        ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d -t stampede-ec2-check.XXXXXX)
passed=0 failed=0 skipped=0 running=

# Nothing is mounted outside of the namespaces that end with their command, so there is nothing to unmount.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'stop_running; exit 130' INT TERM

# OpenTofu keeps what it downloads and remembers in the folder of this run, and asks for no newer version of itself.
export TF_DATA_DIR=$work/data CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0
tofu=$(command -v tofu || command -v terraform || true)

main() {
    check_scripts
    check_format
    check_provider
    check_variables
    check_layouts
    check_hand_over
    check_debian
    echo "$passed passed, $failed failed, $skipped skipped"
    ((failed == 0))
}

# --- verdicts ---------------------------------------------------------------------------------------------------------

# check NAME SECONDS COMMAND...
check() {
    local name=$1 seconds=$2 log=$work/log status=0
    shift 2
    bounded "$seconds" "$@" >"$log" 2>&1 </dev/null || status=$?
    if ((status == 0)); then
        passed=$((passed + 1))
        echo "ok    $name"
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
        ((status != 124)) || echo "      not over after $seconds s"
        tail -n 25 "$log" | sed 's/^/      /'
    fi
    return "$status"
}

skip() {
    skipped=$((skipped + 1))
    echo "skip  $1: $2"
}

# A command or a function of this file, for so many seconds at most, with all that it started. In the background,
# because bash heeds a signal only when what it runs in the foreground is over.
bounded() {
    local limit=(timeout --kill-after=10 "$1")
    shift
    if [[ $(type -t "$1") == function ]]; then
        export here work tofu
        "${limit[@]}" bash -c "set -euo pipefail; $(declare -f); \"\$@\"" bash "$@" &
    else
        "${limit[@]}" "$@" &
    fi
    running=$!
    wait "$running"
}

stop_running() {
    if [[ -n $running ]]; then
        kill "$running" && wait "$running"
    fi 2>/dev/null || true
}

# --- files ------------------------------------------------------------------------------------------------------------

check_scripts() {
    local script
    for script in user-data.sh hand-over.sh check.sh; do
        check "$script is bash" 10 bash -n "$here/$script" || true
    done
    if command -v shellcheck >/dev/null; then
        check "shellcheck" 60 shellcheck --shell=bash "$here"/{user-data,hand-over,check}.sh || true
    else
        skip "shellcheck" "it is not installed"
    fi
}

check_format() {
    if [[ -z $tofu ]]; then
        skip "format" "neither tofu nor terraform is installed"
        return
    fi
    check "format" 60 "$tofu" -chdir="$here" fmt -check -diff -recursive || true
}

# Against the provider's own schema, where the provider can be downloaded or is mirrored.
check_provider() {
    if [[ -z $tofu ]]; then
        skip "validate" "neither tofu nor terraform is installed"
        return
    fi
    local copy=$work/validate
    mkdir "$copy"
    cp "$here"/*.tf "$here/user-data.sh" "$copy"
    if bounded 180 "$tofu" -chdir="$copy" init -backend=false -no-color >"$copy/log" 2>&1; then
        check "validate" 120 "$tofu" -chdir="$copy" validate -no-color || true
    elif grep -qiE 'failed to (query|install)|could not (query|connect|resolve)|registry' "$copy/log"; then
        skip "validate" "the AWS provider cannot be had from here"
    else
        check "init" 10 sh -c "cat '$copy/log'; false" || true
    fi
}

# --- what is decided without asking AWS -------------------------------------------------------------------------------

# plan NAME VARIABLE=VALUE...: variables and machines alone, which need no provider. The last value of a name counts;
# without one the variable is left out.
plan() {
    local folder=$work/plans/$1 value
    shift
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$here"/{variables,machines}.tf "$here/user-data.sh" "$folder"
    printf 'output "%s" {\n  value = %s\n}\n' machines local.machines user_data local.user_data >"$folder/outputs.tf"
    local -A values=([allowed_cidr]=203.0.113.7/32 [key_name]=sale)
    values[source_repository]=https://git.example/you/stampede.git
    for value in "$@"; do
        values[${value%%=*}]=${value#*=}
    done
    local arguments=()
    for value in "${!values[@]}"; do
        [[ -z ${values[$value]} ]] || arguments+=(-var "$value=${values[$value]}")
    done
    "$tofu" -chdir="$folder" apply -auto-approve -no-color "${arguments[@]}"
}

# refused MESSAGE VARIABLE=VALUE...
refused() {
    local message=$1 output
    shift
    if output=$(plan refused "$@" 2>&1); then
        echo "accepted: $*"
        return 1
    fi
    # The message may be broken into lines and framed.
    tr -s ' \n│' ' ' <<<"$output" | grep -qF "$message" || {
        echo "$output"
        return 1
    }
}

check_variables() {
    if [[ -z $tofu ]]; then
        skip "variables" "neither tofu nor terraform is installed"
        return
    fi
    check "allowed_cidr has to be given" 30 refused '"allowed_cidr" is not set' allowed_cidr= || true
    check "source_repository has to be given" 30 refused '"source_repository" is not set' source_repository= || true
    local world="allowed_cidr would let the world in"
    check "0.0.0.0/0 is refused" 30 refused "$world" allowed_cidr=0.0.0.0/0 || true
    check "half of the world is refused" 30 refused "$world" allowed_cidr=128.0.0.0/1 || true
    check "no CIDR is refused" 30 refused "is an IPv4 CIDR" allowed_cidr=203.0.113.7 || true
    check "bits behind the mask are refused" 30 refused "behind its mask" allowed_cidr=203.0.113.7/24 || true
    check "a token in the URL is refused" 30 \
        refused "without a user" source_repository=https://u:t@git.example/s.git || true
    check "a quote in the ref is refused" 30 refused "source_ref is" "source_ref=x'; reboot '" || true
    check "another layout is refused" 30 refused 'layout is "one" or "three"' layout=two || true
}

# laid_out NAME MACHINES VARIABLE=VALUE...: a layout has these machines, and what they are told is bash that fits.
laid_out() {
    local name=$1 machines=$2 machine script
    shift 2
    plan "$name" "$@" >/dev/null
    local folder=$work/plans/$name
    "$tofu" -chdir="$folder" output -json user_data >"$folder/user-data.json"
    python3 - "$folder" "$machines" <<'PYTHON'
import json, pathlib, sys
folder, machines = pathlib.Path(sys.argv[1]), sys.argv[2].split()
scripts = json.loads((folder / "user-data.json").read_text())
assert sorted(scripts) == sorted(machines), f"machines {sorted(scripts)}"
for machine, script in scripts.items():
    assert len(script.encode()) <= 16384, f"{machine}: AWS takes 16 KiB of user data"
    (folder / f"{machine}.sh").write_text(script)
PYTHON
    for machine in $machines; do
        bash -n "$folder/$machine.sh"
    done
}

keyless() {
    laid_out keyless mesh key_name= region=eu-west-1
    grep -qx "SESSION_MANAGER_REGION='eu-west-1'" "$work/plans/keyless/mesh.sh"
}

check_layouts() {
    if [[ -z $tofu ]] || ! command -v python3 >/dev/null; then
        skip "layouts" "tofu or terraform, and python3, are needed"
        return
    fi
    check "layout one has one machine" 30 laid_out one "mesh" || true
    check "layout one with load has two" 30 laid_out loaded "mesh load" load=true || true
    check "layout three has three" 30 laid_out three "mesh servers load" layout=three || true
    check "with an image to pull" 30 \
        laid_out pulled "mesh servers load" layout=three image=registry.example/stampede:1 || true
    check "without a key pair there is Session Manager" 30 keyless || true
}

# --- handing over -----------------------------------------------------------------------------------------------------

# hand-over.sh with machines that are folders: ssh runs the command here, in the folder of the machine that it names.
handed_over() {
    local stage=$work/hand-over address
    mkdir -p "$stage/bin" "$stage/ec2"
    cp "$here/hand-over.sh" "$stage/ec2"
    for address in 198.51.100.10 198.51.100.11 198.51.100.12; do
        mkdir -p "$stage/$address/stampede_"{database,redis-server,auth,mesh}-secrets
    done
    (umask 0377 && echo of-the-database >"$stage/198.51.100.10/stampede_database-secrets/password")
    (umask 0377 && echo of-redis >"$stage/198.51.100.10/stampede_redis-server-secrets/users.acl")
    (umask 0377 && echo of-tokens >"$stage/198.51.100.10/stampede_auth-secrets/secret")
    (umask 0377 && echo of-calls >"$stage/198.51.100.10/stampede_mesh-secrets/secret")
    cat >"$stage/bin/tofu" <<'STUB'
#!/bin/sh
echo database password mesh 198.51.100.10 servers 198.51.100.11
echo redis-server users.acl mesh 198.51.100.10 servers 198.51.100.11
echo auth secret mesh 198.51.100.10 load 198.51.100.12
echo mesh secret mesh 198.51.100.10 load 198.51.100.12
STUB
    cat >"$stage/bin/ssh" <<STUB
#!/bin/bash
while [[ \$1 == -* ]]; do [[ \$1 == -o ]] && shift; shift; done
export machine=\${1#admin@}; shift
echo "\$machine \$*" >>"$stage/calls"
exec sh -c "\$*"
STUB
    printf '#!/bin/sh\nexec "$@"\n' >"$stage/bin/sudo"
    printf '#!/bin/sh\nexit 0\n' | tee "$stage/bin/cloud-init" >"$stage/bin/systemctl"
    printf '#!/bin/sh\n[ "$2" = create ] || eval "echo %s/$machine/\\${$#}"\n' "$stage" >"$stage/bin/docker"
    chmod +x "$stage"/bin/*

    PATH=$stage/bin:$PATH "$stage/ec2/hand-over.sh"
    PATH=$stage/bin:$PATH "$stage/ec2/hand-over.sh" >/dev/null

    [[ $(<"$stage/198.51.100.11/stampede_database-secrets/password") == of-the-database ]]
    [[ $(<"$stage/198.51.100.11/stampede_redis-server-secrets/users.acl") == of-redis ]]
    [[ $(<"$stage/198.51.100.12/stampede_auth-secrets/secret") == of-tokens ]]
    [[ $(<"$stage/198.51.100.12/stampede_mesh-secrets/secret") == of-calls ]]
    # Rights stay, and no machine gets more than it needs.
    [[ $(stat -c %a "$stage/198.51.100.11/stampede_database-secrets/password") == 400 ]]
    [[ $(find "$stage"/198.51.100.1[12] -type f | wc -l) == 4 ]]
    # The servers come before what needs them.
    local started
    started=$(grep 'systemctl start' "$stage/calls" | sed -n '1,2s/ .*//p' | paste -sd' ')
    [[ $started == "198.51.100.11 198.51.100.10" ]]
}

check_hand_over() {
    check "hand-over.sh hands over, in order, and twice" 60 handed_over || true
}

# --- a first boot, in a Debian root -----------------------------------------------------------------------------------

check_debian() {
    if [[ $mode == --quick ]]; then
        skip "first boot in a Debian root" "--quick"
    elif ((EUID != 0)); then
        skip "first boot in a Debian root" "it needs root"
    elif ! command -v debootstrap >/dev/null; then
        skip "first boot in a Debian root" "debootstrap is not installed"
    elif [[ ! -d $work/plans/three ]]; then
        skip "first boot in a Debian root" "the layouts could not be made"
    elif check "a root of Debian 13" 600 make_root; then
        local role
        for role in all mesh servers load; do
            check "first boot: $role" 900 boot "$role" || true
            check "what it left: $role" 30 "left_$role" || true
        done
        check "a second run changes nothing" 300 boot_again || true
        check "compose v2 is Debian's" 30 compose_is_v2 || true
        check_compose
        check "systemd-analyze verify" 60 verify_units || true
    else
        skip "first boot" "there is no Debian root"
    fi
}

# As the cloud's image: with systemd and sudo, and the account that cloud-init makes.
make_root() {
    local root=$work/root mirror=${DEBIAN_MIRROR:-}
    if [[ -z $mirror ]] && grep -q '^ID=debian' /etc/os-release; then
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
    fi
    # What it mounts ends with it.
    unshare --mount -- \
        debootstrap --variant=minbase --include=systemd,sudo,ca-certificates trixie "$root" ${mirror:+"$mirror"}
    # No service may start in it.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    # There is no systemd to talk to and no Docker to build with. Both are asked for what they would be told.
    local stub
    for stub in systemctl docker; do
        printf '#!/bin/sh\necho "%s $*" >>/var/log/calls\n' "$stub" >"$root/usr/local/bin/$stub"
    done
    chmod +x "$root"/usr/sbin/policy-rc.d "$root"/usr/local/bin/*
    chroot "$root" useradd --create-home --shell /bin/bash admin
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # The working tree as it stands, under the URL that the machines are told.
    local source=$root/source
    mkdir "$source"
    (cd "$here/../.." && git ls-files -z --cached --others --exclude-standard -- deploy rust-toolchain.toml |
        while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
        tar --create --null --files-from=-) | tar --extract --no-same-owner --directory "$source"
    git -C "$source" init --quiet --initial-branch=main
    git -C "$source" add --all
    git -C "$source" -c user.name=check -c user.email=check@example.invalid commit --quiet --message source
    printf '[url "file:///source"]\n\tinsteadOf = https://git.example/you/stampede.git\n[safe]\n\tdirectory = *\n' \
        >"$root/etc/gitconfig"
}

# In namespaces of its own, which end with it and take their mounts and processes along.
inside() {
    unshare --mount --pid --fork --kill-child -- sh -c '
        mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" && exec chroot "$@"' sh "$work/root" \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# boot ROLE: the user data as tofu renders it, on a machine without what another role left.
boot() {
    local root=$work/root role=$1 script
    case $role in
        all) script=$work/plans/one/mesh.sh ;;
        *) script=$work/plans/three/$role.sh ;;
    esac
    rm -rf "$root"/opt/stampede "$root"/etc/stampede.env "$root"/etc/profile.d/stampede.sh \
        "$root"/etc/systemd/system/stampede.service* "$root"/var/log/calls
    install -m 0700 "$script" "$root/var/user-data"
    inside /var/user-data
}

boot_again() {
    local root=$work/root
    changed() { (cd "$root" && find opt/stampede etc -type f ! -path '*/.git/*' -exec sha256sum {} + | sort) || true; }
    changed >"$work/before"
    inside /var/user-data
    changed >"$work/after"
    diff "$work/before" "$work/after"
}

told() {
    grep -qxF -- "$1" "$work/root/var/log/calls" || {
        echo "not told: $1"
        cat "$work/root/var/log/calls"
        return 1
    }
}

set_to() {
    grep -qxF -- "$1" "$work/root/etc/stampede.env" || {
        echo "not set: $1"
        cat "$work/root/etc/stampede.env"
        return 1
    }
}

never_told() {
    ! grep -F -- "$1" "$work/root/var/log/calls"
}

left_out() {
    ! grep -F -- "$1" "$work/root/etc/stampede.env"
}

left_all() {
    local root=$work/root
    set_to STAMPEDE_BIND_ADDRESS=0.0.0.0
    set_to GATEWAY_PORT=8080
    set_to STAMPEDE_PAY_WINDOW_MS=300000
    left_out HOST
    told "docker compose --progress plain build"
    told "systemctl enable stampede.service"
    told "systemctl start stampede.service"
    test -f "$root/etc/systemd/system/stampede.service"
    test ! -e "$root/etc/systemd/system/stampede.service.d"
    chroot "$root" id -nG admin | grep -qw docker
}

left_mesh() {
    set_to REDIS_HOST=10.77.0.11:7379
    set_to MYSQL_HOST=10.77.0.11:7306
    set_to KAFKA_BROKERS=10.77.0.11:7092
    told "docker compose --progress plain build"
    told "docker compose run --rm --no-TTY --no-deps secrets"
    told "systemctl enable stampede.service"
    never_told "systemctl start"
    test -f "$work/root/etc/systemd/system/stampede.service.d/mesh.conf"
}

left_servers() {
    set_to SERVERS_BIND_ADDRESS=0.0.0.0
    set_to KAFKA_ADVERTISED_HOST=10.77.0.11
    left_out STAMPEDE_BIND_ADDRESS
    told "docker compose pull --quiet redis mysql kafka"
    told "systemctl enable stampede.service"
    never_told build
    never_told "systemctl start"
    test -f "$work/root/etc/systemd/system/stampede.service.d/servers.conf"
}

left_load() {
    local root=$work/root
    set_to STAMPEDE_GATEWAY_URL=http://10.77.0.10:8080
    told "docker compose --progress plain build"
    never_told systemctl
    test ! -e "$root/etc/systemd/system/stampede.service"
    test "$(chroot "$root" stat -c %U /opt/stampede)" = admin
    # Not asked for its version, which would download one.
    test -x "$root/usr/bin/cargo" && test -x "$root/usr/bin/g++" && test -x "$root/usr/bin/make"
    # The operator's shell is told too.
    chroot "$root" su - admin -c env | grep -x STAMPEDE_GATEWAY_URL=http://10.77.0.10:8080
}

compose_is_v2() {
    inside /usr/bin/docker compose version --short | tee /dev/stderr | grep -qE '^v?2\.'
}

# Debian's compose reads our files with the settings of each machine, without Docker running.
check_compose() {
    if [[ ! -f $work/root/opt/stampede/deploy/compose/compose.yaml ]]; then
        skip "compose reads its files" "deploy/compose/compose.yaml is not there"
        return
    fi
    check "compose heeds the settings: all" 60 heeded one/mesh 0.0.0.0:8080 || true
    check "compose heeds the settings: mesh" 60 heeded three/mesh \
        0.0.0.0:8080 10.77.0.11:7379 10.77.0.11:7306 10.77.0.11:7092 || true
    check "compose heeds the settings: servers" 60 heeded three/servers \
        0.0.0.0:7379 0.0.0.0:7306 0.0.0.0:7092 EXTERNAL://10.77.0.11:7092 || true
    check "units and scripts name services and volumes that there are" 60 named || true
}

# heeded PLAN/MACHINE WORD...: each is an address that a port is published to, or stands in an environment.
heeded() {
    settings_of "$1" >"$work/root/etc/stampede.env"
    shift
    compose_config
    python3 - "$work/config.json" "$@" <<'PYTHON'
import json, sys
services = json.load(open(sys.argv[1]))["services"]
published = {f"{p.get('host_ip', '')}:{p['published']}" for s in services.values() for p in s.get("ports", [])}
told = " ".join(str(v) for s in services.values() for v in (s.get("environment") or {}).values())
missing = [word for word in sys.argv[2:] if word not in published and word not in told]
assert not missing, f"{missing} not in {sorted(published)} nor in environments"
PYTHON
}

settings_of() {
    sed -n "/^SETTINGS='/,/'\$/p" "$work/plans/$1.sh" | sed "s/^SETTINGS='//; s/'\$//"
}

compose_config() {
    inside /bin/sh -c 'set -a; . /etc/stampede.env; cd /opt/stampede/deploy/compose
        exec /usr/bin/docker compose --profile "*" config --format json' >"$work/config.json"
}

named() {
    settings_of three/mesh >"$work/root/etc/stampede.env"
    compose_config
    python3 - "$work/config.json" "$work"/root/opt/stampede/deploy/ec2/units/*.conf <<'PYTHON'
import json, re, sys
config = json.load(open(sys.argv[1]))
named = {"secrets"}
for unit in sys.argv[2:]:
    for line in re.findall(r"^ExecStart=\S+ compose up (.+)$", open(unit).read().replace("\\\n", " "), re.M):
        named |= {word for word in line.split() if not word.startswith("--")}
assert len(named) > 10, named
assert named <= set(config["services"]), f"no service {named - set(config['services'])}"
volumes = {volume["name"] for volume in config["volumes"].values()}
assert {"stampede_database-secrets", "stampede_redis-server-secrets", "stampede_auth-secrets",
        "stampede_mesh-secrets"} <= volumes, volumes
PYTHON
}

verify_units() {
    local root=$work/root unit
    for unit in mesh servers; do
        rm -rf "$root/etc/systemd/system/stampede.service.d"
        install -D -m 0644 "$here/units/stampede.service" "$root/etc/systemd/system/stampede.service"
        said_nothing inside /usr/bin/systemd-analyze verify stampede.service
        install -D -m 0644 -t "$root/etc/systemd/system/stampede.service.d" "$here/units/$unit.conf"
        said_nothing inside /usr/bin/systemd-analyze verify stampede.service
    done
}

# A key that systemd does not know is a warning to it, and no failure.
said_nothing() {
    local said
    if ! said=$("$@" 2>&1) || [[ -n $said ]]; then
        echo "$said"
        return 1
    fi
}

main
