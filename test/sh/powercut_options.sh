#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# powercut's options: what is mistyped is refused with a sentence, not taken for something else.
# timeout: 60
suite=powercut_options
. "$(dirname "$0")/../tools/lib.sh"
powercut=$BUILD/test/powercut

for wrong in typo samples=3 sample= sample=0 sample=-1 sample=3x alle ''; do
	is "cuts=$wrong" 2 "cuts is all or sample=K" "$powercut" --ops 5 --cuts "$wrong"
done
is cuts_all 0 'all recovered' "$powercut" --ops 5 --seed 1 --cuts all
is cuts_sample 0 'all recovered' "$powercut" --ops 5 --seed 1 --cuts sample=3
# A number of a subset means the same one whether all are tried or not.
is one_subset 0 ' 1 states' "$powercut" --ops 30 --seed 1 --event 100 --subset 0
# Recovery came back into a long transaction, and after the next cut again: the records of it that it left out count both times.
is end_within_a_long_one 0 ' 1 states' "$powercut" --seed 1936951024 --ops 600 --event 516 --subset 0
exit $status
