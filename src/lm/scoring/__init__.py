"""How surprising each part of a text is, and which of several texts is likeliest.

source   text in pieces, from a file or as it comes through a pipe
tokens   what a stretch of text is encoded to, and where each token lies in it
reading  tokens to nats, entropy and rank: one stream, or many sentences side by side
units    tokens to words and sentences
columns  units to numbers: surprisal, entropy, rank, places
rows     stretches to tables of these, in the order of the text
scorer   all of these, one after the other
totals   what all of a text comes to
nbest    hypotheses of a recogniser, ranked anew
output   tables as text
"""
