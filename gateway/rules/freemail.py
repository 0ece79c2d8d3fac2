"""Domains where everybody can have a mailbox: to block one of them is to block all kinds of people.

The public providers that we know of by 2026-11-23, with the mail domains of large access providers. Whoever is not in
here can be blocked as a whole without a question; the list need not be complete to keep the costly mistakes away.
"""

from __future__ import annotations

from typing import Final

_MICROSOFT: Final = """
    outlook.com hotmail.com live.com msn.com passport.com hotmail.at hotmail.be hotmail.ca hotmail.ch hotmail.cl
    hotmail.co.il hotmail.co.jp hotmail.co.kr hotmail.co.nz hotmail.co.th hotmail.co.uk hotmail.co.za hotmail.com.ar
    hotmail.com.au hotmail.com.br hotmail.com.mx hotmail.com.tr hotmail.de hotmail.dk hotmail.es hotmail.fi hotmail.fr
    hotmail.gr hotmail.hu hotmail.it hotmail.nl hotmail.no hotmail.pt hotmail.se hotmail.sg live.at live.be live.ca
    live.cl live.cn live.co.uk live.co.za live.com.ar live.com.au live.com.mx live.com.pt live.com.sg live.de live.dk
    live.fi live.fr live.ie live.in live.it live.jp live.nl live.no live.ru live.se outlook.at outlook.be outlook.cl
    outlook.co.id outlook.co.il outlook.co.nz outlook.co.th outlook.com.ar outlook.com.au outlook.com.br
    outlook.com.gr outlook.com.tr outlook.com.vn outlook.cz outlook.de outlook.dk outlook.es outlook.fr outlook.hu
    outlook.ie outlook.in outlook.it outlook.jp outlook.kr outlook.lv outlook.my outlook.ph outlook.pt outlook.sa
    outlook.sg outlook.sk windowslive.com"""
_YAHOO: Final = """
    yahoo.com ymail.com rocketmail.com myyahoo.com yahoo.at yahoo.be yahoo.ca yahoo.ch yahoo.cl yahoo.co.id
    yahoo.co.il yahoo.co.in yahoo.co.jp yahoo.co.kr yahoo.co.nz yahoo.co.th yahoo.co.uk yahoo.co.za yahoo.com.ar
    yahoo.com.au yahoo.com.br yahoo.com.cn yahoo.com.co yahoo.com.hk yahoo.com.mx yahoo.com.my yahoo.com.ph
    yahoo.com.sg yahoo.com.tr yahoo.com.tw yahoo.com.vn yahoo.cz yahoo.de yahoo.dk yahoo.es yahoo.fi yahoo.fr yahoo.gr
    yahoo.hu yahoo.ie yahoo.in yahoo.it yahoo.nl yahoo.no yahoo.pl yahoo.pt yahoo.ro yahoo.se ymail.ne.jp aol.com
    aol.co.uk aol.de aol.fr aol.it aim.com netscape.net love.com games.com wow.com verizon.net att.net bellsouth.net
    sbcglobal.net pacbell.net swbell.net ameritech.net prodigy.net btinternet.com sky.com"""
_OTHERS: Final = """
    gmail.com googlemail.com icloud.com me.com mac.com privaterelay.appleid.com fastmail.com fastmail.fm sent.com
    proton.me protonmail.com protonmail.ch pm.me tutanota.com tutanota.de tutamail.com tuta.com tuta.io keemail.me
    zoho.com zoho.eu zohomail.com zohomail.eu mailfence.com posteo.de posteo.net mailbox.org disroot.org riseup.net
    startmail.com hushmail.com runbox.com kolabnow.com migadu.com hey.com duck.com mozmail.com simplelogin.com
    mail.com email.com usa.com post.com europe.com consultant.com engineer.com myself.com dr.com inbox.com gmx.com
    gmx.net gmx.de gmx.at gmx.ch gmx.co.uk gmx.fr gmx.es gmx.us web.de t-online.de magenta.de freenet.de arcor.de
    online.de vodafone.de vodafonemail.de 1und1.de email.de kabelmail.de o2online.de o2mail.de unitybox.de bluewin.ch
    hispeed.ch sunrise.ch aon.at chello.at a1.net utanet.at orange.fr wanadoo.fr free.fr laposte.net sfr.fr neuf.fr
    bbox.fr numericable.fr club-internet.fr aliceadsl.fr libero.it virgilio.it tiscali.it tin.it alice.it tim.it
    iol.it inwind.it fastwebnet.it poste.it pec.it terra.es telefonica.net ono.com orange.es ya.com sapo.pt
    mail.telepac.pt netcabo.pt clix.pt iol.pt telenet.be skynet.be proximus.be scarlet.be ziggo.nl kpnmail.nl
    planet.nl home.nl hetnet.nl xs4all.nl upcmail.nl tele2.nl casema.nl quicknet.nl virginmedia.com ntlworld.com
    blueyonder.co.uk talktalk.net tiscali.co.uk btopenworld.com virgin.net plus.net o2.co.uk eircom.net comcast.net
    xfinity.com cox.net charter.net spectrum.net rr.com roadrunner.com twc.com earthlink.net juno.com netzero.net
    optonline.net optimum.net frontier.com frontiernet.net centurylink.net windstream.net q.com embarqmail.com shaw.ca
    rogers.com bell.net sympatico.ca telus.net videotron.ca cogeco.ca bigpond.com bigpond.net.au optusnet.com.au
    iinet.net.au tpg.com.au internode.on.net xtra.co.nz uol.com.br bol.com.br terra.com.br ig.com.br globo.com
    oi.com.br r7.com qq.com foxmail.com vip.qq.com 163.com 126.com yeah.net vip.163.com 188.com sina.com sina.cn
    sohu.com 139.com 189.cn wo.cn aliyun.com tom.com 21cn.com naver.com hanmail.net daum.net kakao.com nate.com
    docomo.ne.jp ezweb.ne.jp au.com softbank.ne.jp i.softbank.jp nifty.com biglobe.ne.jp ocn.ne.jp so-net.ne.jp
    rediffmail.com indiatimes.com sify.com yandex.ru yandex.com ya.ru yandex.by yandex.kz yandex.ua narod.ru mail.ru
    inbox.ru list.ru bk.ru internet.ru rambler.ru lenta.ru ro.ru ukr.net i.ua meta.ua bigmir.net wp.pl o2.pl onet.pl
    onet.eu op.pl vp.pl interia.pl interia.eu poczta.fm tlen.pl gazeta.pl poczta.onet.pl seznam.cz email.cz post.cz
    centrum.cz atlas.cz volny.cz centrum.sk azet.sk zoznam.sk freemail.hu citromail.hu t-online.hu indamail.hu abv.bg
    mail.bg dir.bg online.no telia.com bredband.net spray.se comhem.se tele2.se mail.dk ofir.dk jubii.dk kolumbus.fi
    luukku.com elisanet.fi suomi24.fi inbox.lv one.lt mail.ee hot.ee walla.co.il walla.com bezeqint.net
    netvision.net.il 012.net.il mynet.com otenet.gr forthnet.gr mweb.co.za telkomsa.net vodamail.co.za webmail.co.za"""

WHOLE_PROVIDERS: Final = frozenset((*_MICROSOFT.split(), *_YAHOO.split(), *_OTHERS.split()))
