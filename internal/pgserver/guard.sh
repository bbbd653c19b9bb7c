# The guard of one throw-away server. It runs as the server's user and needs only what POSIX has, and a test that knows
# -ef.
#
# guard DIR...  makes the first of the folders that it can make, prints it, waits until standard input ends, which is
#               a pipe that only its owner can write to, and then cleans.
# clean DIR     stops what runs in the folder and removes it.
trap '' HUP INT QUIT TERM PIPE # PIPE comes of an owner that has ended before the folder is printed
case $1 in
guard)
	shift
	for dir; do
		mkdir -m 700 "$dir" 2>/dev/null && break
		dir=
	done
	[ -n "$dir" ] || exit 1
	echo "$dir"
	exec >/dev/null 2>&1
	while read -r _; do :; done
	;;
clean)
	dir=$2
	;;
esac
data=$dir/data

# running prints the PostgreSQL processes that work in the folder: initdb, the postmaster and its backends, even those
# that outlived the postmaster. Without /proc it is the postmaster alone, who stops its backends; initdb, or a postmaster
# that is just starting, fails by itself when the folder goes.
running() {
	if [ -e /proc/self/cwd ]; then
		for p in /proc/[0-9]*; do
			if [ "$p/cwd" -ef "$data" ] || [ "$p/cwd" -ef "$dir" ]; then
				read -r name <"$p/comm"
				case $name in initdb | postgres) echo "${p#/proc/}" ;; esac
			fi
		done
	else
		pid=$(sed -n 1p "$data/postmaster.pid") && kill -0 "$pid" && echo "$pid"
	fi
}

# QUIT is PostgreSQL's immediate shutdown; a process that was stopped takes it after CONT. After 5 seconds the
# postmaster itself kills the backends that are left. After 7, whatever is left is killed.
round=0
while pids=$(running) && [ -n "$pids" ] && [ $round -lt 200 ]; do
	signal=QUIT
	[ $round -lt 140 ] || signal=KILL
	for pid in $pids; do
		kill -$signal "$pid"
		kill -CONT "$pid"
	done
	sleep 0.05
	round=$((round + 1))
done

# A postmaster that was killed leaves its System V segment behind; the last word of line 7 is its id.
segment=$(sed -n '7s/.* //p' "$data/postmaster.pid") && [ -n "$segment" ] && ipcrm -m "$segment"

round=0
until rm -rf "$dir" || [ $round -ge 100 ]; do
	sleep 0.05
	round=$((round + 1))
done
