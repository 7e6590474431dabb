CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, status text, total numeric, card text);
SELECT brain.watch('orders', 'orders', '{id,status,total}');
INSERT INTO orders (id, status, total) VALUES (11, 'open', 10.50), (12, 'open', 99), (13, 'paid', 7)
ON CONFLICT DO NOTHING;
