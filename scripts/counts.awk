# Sums up what test runners closed with, in one line.
/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) passed += $i; if ($(i+1) ~ /^failed/) failed += $i } }
/^skipped:/ { skipped++ }
END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }
