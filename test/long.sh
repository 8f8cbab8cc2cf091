# The long tier of ./check, read by it: what takes minutes each. Uses its functions run, newest and skip.
char=build/test/nanogpt_char
if [ -e "$text" ]; then
	run "nanoGPT, 2000 steps, f32, 2 threads" 1800 $char "$text" --threads 2
	run "nanoGPT, 2000 steps, f32, 1 thread" 1800 $char "$text" --threads 1
	if grep -q avx512_bf16 /proc/cpuinfo; then
		run "nanoGPT, 2000 steps, bf16" 1800 $char "$text" --dtype bf16
	else
		skip "nanoGPT, bf16" "this CPU has no bf16 products"
	fi
	run "nanoGPT, 500 steps, recompute cheap" 900 $char "$text" 4 4 500 --recompute cheap
	run "nanoGPT, 500 steps, recompute layer" 900 $char "$text" 4 4 500 --recompute layer
	for ranks in 2 3 4; do
		run "nanoGPT, 2000 steps, $ranks ranks" 3600 mpirun --oversubscribe -n $ranks $char "$text" --threads 1
	done
	killed=$log/killed
	# a shell of its own, to say "Killed" where nobody reads it
	( $char "$text" --checkpoint-dir "$killed" --every 100 --kill-at 900 < /dev/null; exit $? ) > "$log/kill" 2>&1
	if [ $? = 137 ]; then
		run "nanoGPT, kill -9 at step 900, resumed" 1800 $char "$text" --checkpoint-dir "$killed" --every 100 --resume "$(newest "$killed")"
	else
		run "nanoGPT, kill -9 at step 900" 10 false
	fi
else
	skip "the published nanoGPT run" "needs $text"
fi
STAVE_KILLS=50 run "50 random kills" 1800 build/test/train/test_run
STAVE_LONG=1 run "divergence of every type, 24 models" 1800 build/test/model/test_parity
# an input that breaks something stays in build/fuzz, for -runs=1 and the debugger
if make -j2 FUZZ=1 CC=clang BUILD=build/fuzz fuzz; then
	for f in build/fuzz/fuzz/*/fuzz_*; do
		case $f in *.d) continue ;; esac
		mkdir -p "$log/corpus"
		run "fuzz ${f#build/fuzz/fuzz/}, a minute" 120 "$f" -max_total_time=60 -rss_limit_mb=4096 -timeout=20 -artifact_prefix="build/fuzz/${f##*/}-" "$log/corpus"
		rm -rf "$log/corpus"
	done
else
	run "fuzz targets build" 10 false
fi
