#!/usr/bin/env bash
# One training command on all hosts of a TPU slice; --help says how.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'HELP'
Runs one training command on all hosts of a Cloud TPU slice, by way of gcloud.

  scripts/launch_tpu.sh ACTION --name NAME --zone ZONE [OPTIONS] [-- COMMAND ...]

Actions, in the order of use:
  create   make the slice
  setup    copy the code (what git lists) to every host and install it there
  run      start COMMAND on every host; it goes on when this terminal closes
  logs     follow the log of one host
  stop     end COMMAND with SIGTERM: it saves a checkpoint; run again resumes
  delete   delete the slice

Options:
  --name NAME         the slice's name
  --zone ZONE         its zone, such as us-west4-a
  --project PROJECT   its project (default: gcloud's own)
  --type TYPE         accelerator type, for create (default v5litepod-256)
  --version VERSION   software version, for create (default v2-alpha-tpuv5-lite)
  --spot              a slice that can be taken away at any time, for create
  --prepare COMMAND   run on every host before the installation, for setup; to mount a disk, say
  --worker N          host whose log is followed, for logs (default 0)
  --folder DIR        folder of the code on the hosts (default prpr)
  --dry-run           print the commands instead of running them
  --help              this text

  scripts/launch_tpu.sh create --name big --zone us-west4-a --type v5litepod-256
  scripts/launch_tpu.sh setup --name big --zone us-west4-a --prepare 'sudo mount SERVER:/share /mnt/share'
  scripts/launch_tpu.sh run --name big --zone us-west4-a -- \
    python experiments/finetune_biggan.py --config=configs/imagenet.py --workdir=/mnt/share/imagenet

COMMAND is an experiment; --distributed is added to it: the hosts find one another. Data and workdir must be on a file
system that all hosts share.
HELP
}

fail() {
  echo "error: $*" >&2
  exit 2
}

action='' name='' zone='' project='' type=v5litepod-256 version=v2-alpha-tpuv5-lite
spot=false prepare=: worker=0 folder=prpr dry=false

while (($#)); do
  option=$1
  shift
  case $option in
    --) break ;;
    --help | -h) usage && exit 0 ;;
    --dry-run) dry=true && continue ;;
    --spot) spot=true && continue ;;
    --*=*) value=${option#*=} option=${option%%=*} ;;
    --name | --zone | --project | --type | --version | --prepare | --worker | --folder)
      (($#)) || fail "$option needs a value"
      value=$1
      shift
      ;;
    create | setup | run | logs | stop | delete)
      [[ -z $action ]] || fail "two actions: $action and $option"
      action=$option && continue
      ;;
    *) fail "unknown action or option $option (--help lists them)" ;;
  esac
  [[ -n $value ]] || fail "$option needs a value"
  case $option in
    --name) name=$value ;;
    --zone) zone=$value ;;
    --project) project=$value ;;
    --type) type=$value ;;
    --version) version=$value ;;
    --prepare) prepare=$value ;;
    --worker)
      [[ $value =~ ^[0-9]+$ ]] || fail "$option $value: must be a host's number, from 0"
      worker=$value
      ;;
    --folder)
      [[ $value =~ ^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$ ]] ||
        fail "$option $value: must be a path below the home folder, of letters, digits and ._-"
      folder=$value
      ;;
    *) fail "unknown option $option (--help lists them)" ;;
  esac
done

[[ -n $action ]] || fail "name an action: create, setup, run, logs, stop or delete"
[[ -n $name ]] || fail "name the slice with --name"
[[ -n $zone ]] || fail "name its zone with --zone"
if [[ $action == run ]]; then
  (($#)) || fail "there is no command; write it after --"
  for word in "$@"; do
    [[ $word != --distributed* && $word != --coordinator* ]] ||
      fail "$word: leave it out, this script joins the hosts"
  done
elif (($#)); then
  fail "a command goes with run, not with $action"
fi
$dry || command -v gcloud >/dev/null || fail "there is no gcloud here; install the Google Cloud SDK"

place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")

show() { # prints a command as a shell would read it
  local word line=''
  for word; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then word="'${word//\'/\'\\\'\'}'"; fi
    line+="$word "
  done
  echo "${line% }"
}

do_() { # runs a command, or shows it
  if $dry; then show "$@"; else "$@"; fi
}

vm() { # ACTION ARGUMENTS ...
  do_ gcloud compute tpus tpu-vm "$@" "${place[@]}"
}

on_hosts() { # WORKER SCRIPT
  vm ssh "$name" "--worker=$1" "--command=$2"
}

# What setup does on a host, in its folder of the code, as one line. It needs Python 3.11 to 3.13, as
# scripts/setup_venv does; images based on Ubuntu 22.04 have 3.10: there uv brings one.
install() {
  tr '\n' ' ' <<'HOST'
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; };
for python in python3 python3.13 python3.12 python3.11; do
if ! fits .venv/bin/python && fits "$python"; then rm -rf .venv; "$python" -m venv .venv || rm -rf .venv; fi;
done;
if ! fits .venv/bin/python; then
rm -rf .venv;
python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --seed --python 3.12 .venv ||
{ echo 'error: no Python 3.11 to 3.13 with venv on this host, and uv cannot bring one; install one with --prepare' >&2; exit 1; };
fi;
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable . 'jax[tpu]'
HOST
}

case $action in
  create)
    options=("--accelerator-type=$type" "--version=$version")
    ! $spot || options+=(--spot)
    vm create "$name" "${options[@]}"
    ;;
  setup)
    if $dry; then
      packed=prpr-code.tar.gz
      echo "# $packed: the files that git lists, packed"
    else
      packing=$(mktemp -d)
      trap 'rm -rf "$packing"' EXIT
      packed=$packing/prpr-code.tar.gz
      git ls-files --cached --others --exclude-standard -z |
        while IFS= read -r -d '' file; do # git lists deleted files, too
          [[ ! -e $file ]] || printf '%s\0' "$file"
        done | tar --null --files-from=- -czf "$packed"
    fi
    vm scp "$packed" "$name:prpr-code.tar.gz" --worker=all
    on_hosts all "set -e; $prepare; mkdir -p $folder; tar -xzf prpr-code.tar.gz -C $folder; \
cd $folder; $(install)"
    ;;
  run)
    command=$(printf '%q ' "$@" --distributed)
    # run.pid holds the command's id, which is its process group's, too.
    on_hosts all "set -e; cd $folder; \
if [ -f run.pid ] && kill -0 \"-\$(cat run.pid)\" 2>/dev/null; then \
echo 'error: a command is running here; stop it first' >&2; exit 1; fi; \
. .venv/bin/activate; export PYTHONUNBUFFERED=1; \
nohup setsid ${command}>> run.log 2>&1 < /dev/null & echo \$! > run.pid"
    ;;
  logs)
    on_hosts "$worker" "tail -n 100 -F $folder/run.log"
    ;;
  stop)
    on_hosts all "cd $folder; [ -f run.pid ] || exit 0; group=\$(cat run.pid); \
kill -TERM \"\$group\" 2>/dev/null || exit 0; \
for _ in \$(seq 300); do kill -0 \"-\$group\" 2>/dev/null || exit 0; sleep 1; done; \
echo 'error: it has not ended after 5 minutes' >&2; exit 1"
    ;;
  delete)
    vm delete "$name" --quiet
    ;;
esac
