"""The style sheet of report.html: light and dark by the reader's setting, narrow screens, and paper."""

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#1c1c1a;--soft:#5c5c56;--line:#e4e3de;--ours:#1f6fd0;
--own:#7fb0e8;--base:#86857e;--rival:#d0650f;--good:#18794e;--bad:#c0292c;--low:#2f7ed8;--high:#d6336c}
@media(prefers-color-scheme:dark){:root{--bg:#161615;--card:#1f1f1d;--ink:#ecebe6;--soft:#b0afa7;--line:#35342f;
--ours:#5aa2f2;--own:#4d7db8;--base:#8e8d85;--rival:#f0934a;--good:#4cc38a;--bad:#ff6b6b;--low:#5aa2f2;--high:#f783ac}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.5rem;margin:0 0 4px}h2{font-size:1.2rem;margin:44px 0 6px;padding-top:10px;
border-top:1px solid var(--line)}h3{font-size:1rem;margin:22px 0 4px}
p,li{margin:6px 0;max-width:75ch}ul{padding-left:1.2rem}.soft{color:var(--soft);font-size:.9em}
a{color:var(--ours)}nav{font-size:.92rem;line-height:2;margin:10px 0}nav a{margin-right:14px;white-space:nowrap}
.verdict{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--base);border-radius:8px;
padding:12px 16px;font-size:1.08rem;margin:14px 0;max-width:none}
.verdict.good{border-left-color:var(--good)}.verdict.bad{border-left-color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:14px 0}
.tiles>div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tiles b{display:block;font-size:1.45rem;font-variant-numeric:tabular-nums;line-height:1.25}
.tiles span{color:var(--soft);font-size:.87rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px;margin:10px 0}
.plots>div:only-child{max-width:520px}
.plots>div>p{font-size:.85rem;color:var(--soft);margin:4px 2px 0}
.plots>div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}
svg{display:block;width:100%;max-width:480px;height:auto;margin:0 auto;font-size:13px}
text{fill:var(--ink)}.title{font-weight:600;font-size:14px}.tick{fill:var(--soft);font-size:12px}
.strong{font-weight:700}.value{font-variant-numeric:tabular-nums}
.grid{stroke:var(--line)}.zero{stroke:var(--soft)}
.span{stroke-width:2.5;stroke-linecap:round}.line{fill:none;stroke-width:2}
.dot{stroke:var(--card);stroke-width:1}
.dot.ours{fill:var(--ours)}.span.ours,.line.ours{stroke:var(--ours)}
.dot.own{fill:var(--own)}.span.own,.line.own{stroke:var(--own)}
.dot.base{fill:var(--base)}.span.base,.line.base{stroke:var(--base)}
.dot.rival{fill:var(--rival)}.span.rival,.line.rival{stroke:var(--rival)}.bar{fill:var(--ours)}
.bee{fill-opacity:.75}.bee.v0{fill:var(--low)}.bee.v1{fill:color-mix(in srgb,var(--high) 25%,var(--low))}
.bee.v2{fill:color-mix(in srgb,var(--high) 50%,var(--low))}.bee.v3{fill:color-mix(in srgb,var(--high) 75%,var(--low))}
.bee.v4{fill:var(--high)}.bee.none{fill:var(--base)}
.key{display:inline-flex;align-items:center;gap:6px;margin-right:16px;font-size:.9rem}
.key i{width:11px;height:11px;border-radius:50%;display:inline-block;flex:none}.key i.square{border-radius:2px}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th{font-weight:600;color:var(--soft)}.words th,.words td{text-align:left}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;
background:var(--card)}tr:last-child td{border-bottom:0}td.text{white-space:normal;text-align:left;min-width:14rem}
td small{display:block;color:var(--soft);font-size:.87em;font-weight:400}td.best{font-weight:700}
tr.ours td{color:var(--ours)}
tr.ours td small{color:var(--soft)}
.ok{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:700}
details{margin:10px 0}summary{cursor:pointer;color:var(--ours);font-size:.95rem;padding:4px 0}
.users{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:4px 20px}
.user{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px;margin:12px 0}
.user ol,.user ul{margin:4px 0;padding-left:1.3rem;font-size:.9rem}.user li{margin:1px 0}.user h3{margin:0 0 4px}
.user h4{margin:6px 0 2px;font-size:.9rem;color:var(--soft);font-weight:600}li.hit{font-weight:700;color:var(--good)}
@media(max-width:480px){main{padding:14px 9px 40px}.plots>div{padding:8px}th,td{padding:5px 7px}.verdict{font-size:1rem}
td.text{min-width:9rem}.tiles{grid-template-columns:1fr 1fr}.tiles b{font-size:1.2rem}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--ours:#1f6fd0;
--own:#7fb0e8;--base:#77766f;--rival:#c25a08;--good:#18794e;--bad:#b02023;--low:#2f7ed8;--high:#d6336c}
@page{margin:14mm}body{font-size:10.5pt}main{max-width:none;padding:0}nav{display:none}
.plots>div,.user,.tiles>div,tr,svg{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}
.plots{grid-template-columns:1fr 1fr}table{font-size:8pt}th,td{padding:3px 5px;position:static!important;
white-space:normal}td.text{min-width:0}td small{white-space:nowrap;font-size:6.5pt}
.tiles{grid-template-columns:repeat(auto-fit,minmax(105px,1fr))}.tiles b{font-size:14pt}.tiles span{font-size:8.5pt}
details::details-content{content-visibility:visible;display:block}summary{list-style:none;color:var(--soft)}}
"""
