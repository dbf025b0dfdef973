#!/bin/sh
# The guest's end of the console protocol; tests/guest/console.py has the other and describes it.
stty raw -echo opost onlcr
mkdir -p /run/answers
printf '\n@ready\n'
while read -r word nonce length payload; do
    answer=/run/answers/$nonce
    case $word in
    @run) [ "${#payload}" = "$length" ] || continue ;; # some of it was lost
    @again) [ -e "$answer.status" ] || continue ;;
    *) continue ;;
    esac
    if [ ! -e "$answer.status" ]; then
        printf '\n@got %s\n' "$nonce"
        echo "$payload" | base64 -d >"$answer.sh" || continue
        sh "$answer.sh" >"$answer.out" 2>&1 </dev/null
        echo $? >"$answer.status"
    fi
    sum=$(md5sum <"$answer.out")
    printf '\n@out %s %s\n@end %s %s %s\n' "$nonce" "$(base64 -w 0 <"$answer.out")" \
        "$nonce" "$(cat "$answer.status")" "${sum%% *}"
    # Answers are kept for a repeated request; a hundred are plenty.
    ls -t /run/answers/*.status 2>/dev/null | tail -n +100 | while read -r old; do rm -f "${old%.status}".*; done
done
