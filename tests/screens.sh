#!/bin/sh
# Makes the pictures in examples/screens: the README's page, light and dark, and one sheet for each width and colour with
# every state of the page. `sh tests/screens.sh`, as root, as tests/screens.rs plays a mail server; it takes chromium.
set -eu
cd "$(dirname "$0")/.."
pictures=$PWD/examples/screens
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/pages"
BARTLEBY_SCREENS=$work/pages cargo test --quiet --test screens >/dev/null

browser() {
    HOME=$work chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" \
        --virtual-time-budget=20000 "$@" 2>/dev/null
}

# picture NAME LIGHT|DARK WIDTH HEIGHT FILE: a file as a picture of this size, in WebP.
picture() {
    case $2 in light) scheme=1 ;; *) scheme=0 ;; esac
    browser --blink-settings=preferredColorScheme=$scheme --window-size="$3,$4" --screenshot="$work/shot.png" "file://$5" >/dev/null
    {
        printf '<body><script>const i=new Image();i.onload=()=>{const c=document.createElement("canvas");c.width=i.width;'
        printf 'c.height=i.height;c.getContext("2d").drawImage(i,0,0);document.body.textContent="[["+'
        printf 'c.toDataURL("image/webp",0.65).split(",")[1]+"]]"};i.src="data:image/png;base64,'
        base64 -w0 "$work/shot.png"
        printf '"</script>'
    } > "$work/convert.html"
    browser --dump-dom "file://$work/convert.html" | tr -d '\n' | sed 's/.*\[\[//; s/\]\].*//' | base64 -d > "$pictures/$1-$2.webp"
}

# sheet NAME WIDTH HEIGHT SCALE COLUMNS: every state on a screen of this size, side by side.
sheet() {
    count=$(find "$work/pages" -name '*.html' | wc -l)
    width=$(awk "BEGIN { print int($2 * $4 + 8) }")
    height=$(awk "BEGIN { print int($3 * $4 + 8) }")
    {
        printf '<meta charset=utf-8><body style="margin:0;background:#888;font-size:0">'
        for page in "$work/pages/"*.html; do
            printf '<div style="display:inline-block;width:%spx;height:%spx;overflow:hidden">' "$width" "$height"
            printf '<iframe src="%s" style="width:%spx;height:%spx;border:0;transform:scale(%s);transform-origin:0 0"></iframe></div>' \
                "$page" "$2" "$3" "$4"
        done
    } > "$work/sheet.html"
    for colours in light dark; do
        picture "$1" "$colours" $((width * $5)) $((height * ((count + $5 - 1) / $5))) "$work/sheet.html"
    done
}

for colours in light dark; do
    picture page "$colours" 1280 1100 "$work/pages/page.html"
done
sheet 1280 1280 800 0.45 4
sheet 768 768 1000 0.45 5
sheet 360 360 740 0.6 8
ls -l "$pictures"
