#!/usr/bin/env bash
# One training command over the nodes of a SLURM cluster; --help says how.
set -euo pipefail

usage() {
  cat <<'HELP'
Submits one training command to SLURM: a process a GPU (or a node), joined by jax.distributed.

  scripts/launch_slurm.sh [OPTIONS] -- COMMAND ...
  scripts/launch_slurm.sh --nodes 1 --gpus 8 --time 24:00:00 -- \
    python experiments/finetune_biggan.py --config=configs/imagenet.py --workdir=runs/imagenet

  --nodes N          nodes (default 1)
  --gpus N           GPUs a node (default 8; 0: none)
  --process-per P    "gpu" (default where there are GPUs) or "node"
  --cpus N           CPU cores a process (default 8)
  --time LIMIT       time limit, as sbatch takes it (default 24:00:00)
  --grace SECONDS    SIGTERM comes so long before the time limit (default 120)
  --partition NAME   partition (default: the cluster's own)
  --account NAME     account (default: the cluster's own)
  --name NAME        the job's name (default prpr)
  --logs DIR         folder of the logs (default runs/slurm)
  --sbatch OPTION    one more option for sbatch, such as --sbatch=--mem=64G; repeatable
  --dry-run          print the batch script instead of submitting it
  --help             this text

Call it from the folder of the code, on a file system that all nodes share. COMMAND is an
experiment; --distributed is added to it where there are several processes. A command that ends with code 75 (it was told to
stop and saved a checkpoint) is queued again and resumes.
The batch script activates .venv if there is one.
HELP
}

fail() {
  echo "error: $*" >&2
  exit 2
}

whole() { # OPTION VALUE LOWEST
  [[ $2 =~ ^(0|[1-9][0-9]{0,5})$ && $2 -ge $3 ]] ||
    fail "$1 $2: must be a whole number, at least $3 and below a million"
}

plain() { # OPTION VALUE
  # In a line of #SBATCH, what follows a blank is another option.
  [[ $2 != *[[:space:]]* ]] || fail "$1 $2: must not contain blanks"
}

nodes=1 gpus=8 per='' cpus=8 limit=24:00:00 grace=120 partition='' account='' name=prpr
logs=runs/slurm dry=false
extra=()

while (($#)); do
  option=$1
  shift
  case $option in
    --) break ;;
    --help | -h) usage && exit 0 ;;
    --dry-run) dry=true && continue ;;
    --*=*) value=${option#*=} option=${option%%=*} ;;
    --nodes | --gpus | --process-per | --cpus | --time | --grace | --partition | --account | \
      --name | --logs | --sbatch)
      (($#)) || fail "$option needs a value"
      value=$1
      shift
      ;;
    *) fail "unknown option $option; write -- before the command (--help lists the options)" ;;
  esac
  [[ -n $value && $value != *$'\n'* ]] || fail "$option needs a value of one line"
  case $option in
    --nodes) whole "$option" "$value" 1 && nodes=$value ;;
    --gpus) whole "$option" "$value" 0 && gpus=$value ;;
    --process-per)
      [[ $value == gpu || $value == node ]] || fail "$option $value: must be gpu or node"
      per=$value
      ;;
    --cpus) whole "$option" "$value" 1 && cpus=$value ;;
    --time)
      [[ $value =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] ||
        fail "$option $value: must be MINUTES, HH:MM:SS or DAYS-HH:MM:SS"
      limit=$value
      ;;
    --grace) whole "$option" "$value" 1 && grace=$value ;;
    --partition) plain "$option" "$value" && partition=$value ;;
    --account) plain "$option" "$value" && account=$value ;;
    --name) plain "$option" "$value" && name=$value ;;
    --logs) plain "$option" "$value" && logs=$value ;;
    --sbatch)
      [[ $value == -* ]] || fail "$option $value: must be an option of sbatch, such as --mem=64G"
      extra+=("$value")
      ;;
    *) fail "unknown option $option (--help lists the options)" ;;
  esac
done

(($#)) || fail "there is no command; write it after --"
((gpus)) || [[ $per != gpu ]] || fail "--process-per gpu goes with --gpus 1 or more"
[[ -n $per ]] || { ((gpus)) && per=gpu || per=node; }
processes=1
[[ $per == node ]] || processes=$gpus

command=("$@")
if ((nodes * processes > 1)); then
  for word in "$@"; do
    [[ $word != --distributed* && $word != --coordinator* ]] ||
      fail "$word: leave it out, this script joins the processes"
  done
  command+=(--distributed)
fi

script() {
  echo '#!/usr/bin/env bash'
  echo "#SBATCH --job-name=$name"
  echo "#SBATCH --nodes=$nodes"
  echo "#SBATCH --ntasks-per-node=$processes"
  echo "#SBATCH --cpus-per-task=$cpus"
  ((gpus == 0)) || echo "#SBATCH --gres=gpu:$gpus"
  echo "#SBATCH --time=$limit"
  echo "#SBATCH --signal=TERM@$grace"
  echo '#SBATCH --requeue'
  echo '#SBATCH --open-mode=append'
  echo "#SBATCH --output=$logs/%x-%j.txt"
  [[ -z $partition ]] || echo "#SBATCH --partition=$partition"
  [[ -z $account ]] || echo "#SBATCH --account=$account"
  ((${#extra[@]} == 0)) || printf '#SBATCH %s\n' "${extra[@]}"
  cat <<'BATCH'
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi
export PYTHONUNBUFFERED=1
# SIGTERM is for the processes: they save and end with code 75. This shell waits for them.
trap : TERM
BATCH
  if [[ $per == node ]] && ((gpus > 1)); then
    # Under SLURM, jax.distributed gives each process one GPU unless it is told which.
    echo "export JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))"
  fi
  echo 'code=0'
  # After one process has ended, the others have a minute to notice and to say why they end.
  # And srun does not inherit --cpus-per-task from sbatch, from SLURM 22.05 on.
  options="--cpus-per-task=$cpus --kill-on-bad-exit=0 --wait=60"
  echo "srun $options $(printf '%q ' "${command[@]}")|| code=\$?"
  cat <<'BATCH'
if [ "$code" -eq 75 ]; then
  echo "stopped with a checkpoint; queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
BATCH
}

if $dry; then
  script
  exit 0
fi
command -v sbatch >/dev/null || fail "there is no sbatch here; call this on a login node of the cluster"
mkdir -p "$logs"
script | sbatch
