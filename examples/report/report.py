"""What runs in the guest, a CPython for WebAssembly: it reads a table and leaves another one."""

import csv

from tally import totals

with open("/data/sales.csv", newline="") as source:
    sums = totals(csv.DictReader(source), "city", "amount")
with open("/tmp/report.csv", "w", newline="") as target:
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["city", "amount"])
    writer.writerows((city, f"{amount:.2f}") for city, amount in sums.items())
print(f"{len(sums)} cities")
